"""The rows: how each module of another library is built and called, small."""

from functools import partial

import timm.layers
import transformers
from kornia import color, feature, filters, geometry
from timm.models import beit, focalnet, swin_transformer, swin_transformer_v2, tiny_vit, vision_transformer, xcit
from torch import nn
from torchvision import ops
from torchvision.models import convnext as tv_convnext
from torchvision.models import swin_transformer as tv_swin
from torchvision.models import vision_transformer as tv_vit
from transformers.models.beit.modeling_beit import BeitLayer
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d
from transformers.models.donut.modeling_donut_swin import DonutSwinLayer
from transformers.models.focalnet.modeling_focalnet import FocalNetModulation
from transformers.models.levit.modeling_levit import LevitAttention
from transformers.models.segformer.modeling_segformer import SegformerAttention
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead
from transformers.models.swin.modeling_swin import SwinLayer
from transformers.models.vit.modeling_vit import ViTLayer
from vit_pytorch import cait, crossformer, cvt, deepvit, levit, max_vit, mobile_vit, vit, vit_with_patch_merger
from vit_pytorch import vit_for_small_dataset as small
from vit_pytorch import xcit as vp_xcit

from tests.contract.foreign.promises import (
    BOUNDED,
    DRIVER,
    FAKE,
    FIXED_WEIGHTS,
    FREQUENCIES,
    FUSED,
    IDENTITY,
    IN_FLOAT32,
    IN_PLACE,
    MOVES_CONSTANTS,
    NO_BFLOAT16,
    NO_EMPTY,
    NO_FX,
    NO_GRADIENT,
    NO_MASK_GRADIENT,
    NOT_ON_FAKE,
    READS,
    RECURRENT,
    SINGLE,
    STATISTICS,
    THIRD_GRAPH,
)
from tests.contract.row import Row

ViT = transformers.ViTConfig(hidden_size=6, num_attention_heads=3, intermediate_size=7, attn_implementation="eager")
Beit = transformers.BeitConfig(hidden_size=6, num_attention_heads=3, intermediate_size=7, attn_implementation="eager")
Siglip = transformers.SiglipVisionConfig(
    hidden_size=6, num_attention_heads=3, intermediate_size=7, attn_implementation="eager"
)
Swin = transformers.SwinConfig(window_size=4, attn_implementation="eager")
Donut = transformers.DonutSwinConfig(window_size=4, attn_implementation="eager")
Segformer = transformers.SegformerConfig(attn_implementation="eager")

TORCH = (
    Row("nn.MultiheadAttention", partial(nn.MultiheadAttention, 6, 3, batch_first=True), (5, 6), "m(x, x, x)[0]"),
    Row(
        "nn.TransformerEncoderLayer",
        partial(nn.TransformerEncoderLayer, 6, 3, 7, batch_first=True),
        (5, 6),
        conventions=FUSED,
    ),
    Row("nn.LayerNorm", partial(nn.LayerNorm, 6), (5, 6)),
    Row("nn.RMSNorm", partial(nn.RMSNorm, 6), (5, 6)),
    Row("nn.GroupNorm", partial(nn.GroupNorm, 2, 6), (6, 4, 5)),
    Row("nn.BatchNorm2d", partial(nn.BatchNorm2d, 5), (5, 4, 6)),
    Row("nn.InstanceNorm2d", partial(nn.InstanceNorm2d, 5, affine=True), (5, 4, 6)),
    Row("nn.Conv2d", partial(nn.Conv2d, 3, 5, 3), (3, 6, 7)),
    Row("nn.ConvTranspose2d", partial(nn.ConvTranspose2d, 3, 5, 3), (3, 4, 5)),
    Row("nn.GRU", partial(nn.GRU, 5, 4, batch_first=True), (3, 5), "m(x)[0]", exempt=DRIVER, conventions=RECURRENT),
    Row("nn.LSTM", partial(nn.LSTM, 5, 4, batch_first=True), (3, 5), "m(x)[0]", exempt=DRIVER, conventions=RECURRENT),
    Row("nn.Bilinear", partial(nn.Bilinear, 5, 5, 3), (4, 5), "m(x, x)"),
    Row("nn.LPPool2d", partial(nn.LPPool2d, 2, 2), (3, 6, 4)),
    Row("nn.LocalResponseNorm", partial(nn.LocalResponseNorm, 3), (5, 4, 3), conventions=NO_BFLOAT16),
    Row("nn.PixelShuffle", partial(nn.PixelShuffle, 2), (4, 3, 5)),
    Row("nn.PixelUnshuffle", partial(nn.PixelUnshuffle, 2), (3, 4, 6)),
)
SHIFTED = partial(tv_swin.ShiftedWindowAttention, 6, [2, 2], [1, 1], 3)
TORCHVISION = (
    Row("torchvision MLP", partial(ops.MLP, 5, [7, 5], activation_layer=nn.GELU), (3, 5)),
    Row("torchvision SqueezeExcitation", partial(ops.SqueezeExcitation, 5, 3), (5, 4, 3)),
    Row(
        "torchvision DeformConv2d",
        partial(ops.DeformConv2d, 3, 4, 3),
        (21, 5, 6),
        "m(x[:, :3], x[:, 3:, 1:-1, 1:-1])",
        exempt=NOT_ON_FAKE,
        conventions=NO_BFLOAT16
        | NO_FX
        | {"factory options": NO_BFLOAT16["moves"]}
        | {"second derivatives": "an error says that it has none"}
        | {"per-sample gradients": "an error says that `vmap` cannot take its gradient"},
    ),
    Row("torchvision DropBlock2d", partial(ops.DropBlock2d, block_size=3), (3, 5, 6), rates=("p",), exempt=IDENTITY),
    Row("torchvision ShiftedWindowAttention", SHIFTED, (4, 6, 6), smallest=(2, 2, 6), exempt=FAKE),
    Row(
        "torchvision SwinTransformerBlockV2",
        partial(tv_swin.SwinTransformerBlockV2, 6, 3, [2, 2], [1, 1]),
        (4, 6, 6),
        smallest=(2, 2, 6),
    ),
    Row("torchvision EncoderBlock", partial(tv_vit.EncoderBlock, 3, 6, 7), (5, 6), conventions=FUSED),
    Row("torchvision CNBlock", partial(tv_convnext.CNBlock, 5, 0.1), (5, 8, 7)),
)
TIMM = (
    Row("timm Mlp", partial(timm.layers.Mlp, 5, 7), (3, 5)),
    Row("timm GluMlp", partial(timm.layers.GluMlp, 5, 8), (3, 5)),
    Row("timm GlobalResponseNormMlp", partial(timm.layers.GlobalResponseNormMlp, 5, 8), (3, 4, 5)),
    Row("timm Attention", partial(timm.layers.Attention, 6, 3), (5, 6), conventions=FUSED),
    Row(
        "timm AttentionPoolLatent",
        partial(timm.layers.AttentionPoolLatent, 6, num_heads=3),
        (5, 6),
        conventions=FUSED,
    ),
    Row(
        "timm AttentionPool2d",
        partial(timm.layers.AttentionPool2d, 8, (3, 2), head_dim=4),
        (8, 3, 2),
        conventions=FUSED | NO_EMPTY | NO_FX,
    ),
    Row(
        "timm RotAttentionPool2d",
        partial(timm.layers.RotAttentionPool2d, 8, ref_feat_size=3, head_dim=4),
        (8, 3, 3),
        smallest=(8, 2, 2),
        conventions=FUSED | NO_EMPTY | NO_FX | FREQUENCIES,
    ),
    Row("timm PatchEmbed", partial(timm.layers.PatchEmbed, (4, 6), 2, 3, 5), (3, 4, 6)),
    Row("timm StdConv2d", partial(timm.layers.StdConv2d, 3, 4, 3), (3, 5, 6)),
    Row("timm ScaledStdConv2d", partial(timm.layers.ScaledStdConv2d, 3, 4, 3), (3, 5, 6)),
    Row(
        "timm CondConv2d",
        partial(timm.layers.CondConv2d, 3, 4, 3),
        (3, 5, 6),
        "m(x, x.mean((2, 3))[:, [0, 1, 2, 0]])",
        conventions=NO_EMPTY,
    ),
    Row("timm EvoNorm2dS0", partial(timm.layers.EvoNorm2dS0, 6, groups=2), (6, 4, 5), conventions=STATISTICS),
    Row("timm EvoNorm2dB0", partial(timm.layers.EvoNorm2dB0, 6), (6, 4, 5), conventions=STATISTICS),
    Row(
        "timm FilterResponseNormTlu2d",
        partial(timm.layers.FilterResponseNormTlu2d, 6),
        (6, 4, 5),
        conventions=SINGLE | {"strides": IN_FLOAT32},
    ),
    Row("timm BlurPool2d", partial(timm.layers.BlurPool2d, 3), (3, 6, 5)),
    Row("timm SplitAttn", partial(timm.layers.SplitAttn, 4), (4, 5, 6), conventions=NO_EMPTY | IN_PLACE),
    Row("timm SelectiveKernel", partial(timm.layers.SelectiveKernel, 4), (4, 5, 6)),
    Row("timm GatherExcite", partial(timm.layers.GatherExcite, 4), (4, 5, 6)),
    Row("timm GlobalContext", partial(timm.layers.GlobalContext, 8), (8, 5, 6), conventions=NO_GRADIENT),
    Row("timm NonLocalAttn", partial(timm.layers.NonLocalAttn, 8), (8, 5, 4), conventions=NO_EMPTY),
    Row("timm SEModule", partial(timm.layers.SEModule, 8), (8, 5, 4), conventions=IN_PLACE),
    Row("timm EcaModule", partial(timm.layers.EcaModule, 8), (8, 5, 4), conventions=NO_EMPTY),
    Row(
        "timm DropBlock2d",
        partial(timm.layers.DropBlock2d, block_size=3),
        (3, 5, 6),
        rates=("drop_prob",),
        exempt=IDENTITY,
    ),
    Row(
        "timm TinyViT Attention",
        partial(tiny_vit.Attention, 6, 2, 3, 2, resolution=(3, 2)),
        (6, 6),
        conventions=NO_EMPTY,
    ),
    Row(
        "timm SwinTransformerBlock",
        partial(swin_transformer.SwinTransformerBlock, 6, (4, 6), 3, window_size=2, shift_size=1),
        (4, 6, 6),
        conventions=NO_EMPTY,
    ),
    Row(
        "timm SwinTransformerV2Block",
        partial(swin_transformer_v2.SwinTransformerV2Block, 6, (4, 4), 3, window_size=2, shift_size=1),
        (4, 4, 6),
        conventions=NO_EMPTY,
    ),
    Row(
        "timm LambdaLayer",
        partial(timm.layers.lambda_layer.LambdaLayer, 8, feat_size=(4, 3), num_heads=2, r=3),
        (8, 4, 3),
    ),
    Row("timm ViT Block", partial(vision_transformer.Block, 6, 3), (5, 6), conventions=FUSED),
    Row("timm XCA", partial(xcit.XCA, 6, 3), (5, 6)),
    Row("timm FocalModulation", partial(focalnet.FocalModulation, 6, 3, 2), (6, 4, 5)),
    Row(
        "timm BEiT Attention",
        partial(beit.Attention, 6, 3, window_size=(2, 2)),
        (5, 6),
        conventions=NO_EMPTY | NO_FX | {"vmap": NO_MASK_GRADIENT, "forward mode": FUSED["forward mode"]},
    ),
)
TRANSFORMERS = (
    Row("transformers ViTLayer", partial(ViTLayer, ViT), (5, 6), conventions=NO_EMPTY | NO_FX | SINGLE),
    Row(
        "transformers SwinLayer",
        partial(SwinLayer, Swin, 6, (8, 8), 3, shift_size=2),
        (64, 6),
        "m(x, (int(x.shape[1] ** 0.5),) * 2)[0]",
        smallest=(16, 6),
        conventions=NO_EMPTY | NO_FX | SINGLE,
    ),
    Row(
        "transformers DonutSwinLayer",
        partial(DonutSwinLayer, Donut, 6, (8, 8), 3, shift_size=2),
        (64, 6),
        "m(x, (int(x.shape[1] ** 0.5),) * 2)[0]",
        smallest=(16, 6),
        conventions=NO_EMPTY | NO_FX,
    ),
    Row("transformers LevitAttention", partial(LevitAttention, 6, 2, 3, 2, 3), (9, 6), conventions=NO_EMPTY),
    Row("transformers FocalNetModulation", partial(FocalNetModulation, transformers.FocalNetConfig(), 0, 6), (4, 5, 6)),
    Row(
        "transformers SegformerAttention",
        partial(SegformerAttention, Segformer, 6, 3, 2),
        (16, 6),
        "m(x, 4, 4)[0]",
        conventions=NO_EMPTY | NO_FX | SINGLE,
    ),
    Row(
        "transformers BeitLayer",
        partial(BeitLayer, Beit),
        (5, 6),
        rates=("drop_path_rate",),
        conventions=NO_EMPTY | NO_FX | SINGLE,
    ),
    Row("transformers DetrFrozenBatchNorm2d", partial(DetrFrozenBatchNorm2d, 5), (5, 4, 3)),
    Row("transformers SiglipPoolingHead", partial(SiglipMultiheadAttentionPoolingHead, Siglip), (5, 6)),
)
KORNIA = (
    Row(
        "kornia GaussianBlur2d",
        partial(filters.GaussianBlur2d, (3, 3), (1.0, 1.5)),
        (3, 5, 6),
        conventions=NO_FX | READS,
    ),
    Row("kornia BilateralBlur", partial(filters.BilateralBlur, (3, 3), 0.5, (1.0, 1.0)), (3, 5, 6), conventions=NO_FX),
    Row(
        "kornia UnsharpMask",
        partial(filters.UnsharpMask, (3, 3), (1.0, 1.5)),
        (3, 5, 6),
        conventions=NO_FX | READS,
    ),
    Row("kornia MedianBlur", partial(filters.MedianBlur, (3, 3)), (3, 5, 6), conventions=NO_FX),
    Row("kornia GuidedBlur", partial(filters.GuidedBlur, 3, 0.1), (3, 5, 6), "m(x, x)", conventions=NO_FX),
    Row("kornia Laplacian", partial(filters.Laplacian, 3), (3, 5, 6), conventions=NO_FX | BOUNDED),
    Row("kornia MaxBlurPool2D", partial(filters.MaxBlurPool2D, 3), (3, 6, 8), conventions=NO_FX),
    Row(
        "kornia SIFTDescriptor",
        partial(feature.SIFTDescriptor, 9, 4, 2),
        (1, 9, 9),
        conventions=NO_FX | MOVES_CONSTANTS | FIXED_WEIGHTS,
    ),
    Row("kornia RgbToHsv", color.RgbToHsv, (3, 4, 5), "m(x.sigmoid())", conventions=NO_FX),
    Row("kornia RgbToLab", color.RgbToLab, (3, 4, 5), "m(x.sigmoid())", conventions=NO_FX),
    Row("kornia PyrDown", geometry.PyrDown, (3, 6, 8), conventions=NO_FX),
)
VIT_PYTORCH = (
    Row("vit_pytorch ViT Attention", partial(vit.Attention, 6, 3, 4), (5, 6), conventions=NO_FX),
    Row("vit_pytorch DeepViT Attention", partial(deepvit.Attention, 6, 3, 4), (5, 6), conventions=NO_FX),
    Row("vit_pytorch LSA", partial(small.LSA, 6, 3, 4), (5, 6), conventions=NO_FX),
    Row("vit_pytorch SPT", partial(small.SPT, dim=6, patch_size=2), (3, 4, 6), conventions=NO_FX),
    Row("vit_pytorch CaiT Transformer", partial(cait.Transformer, 6, 4, 3, 4, 7), (5, 6), conventions=NO_FX),
    Row("vit_pytorch XCiT Transformer", partial(vp_xcit.Transformer, 6, 4, 3, 4, 7), (5, 6), conventions=NO_FX),
    Row("vit_pytorch CvT Attention", partial(cvt.Attention, 6, 3, 2, 3, 4), (6, 4, 4), conventions=NO_FX),
    Row("vit_pytorch LeViT Attention", partial(levit.Attention, 6, 3, 3, 4, 4), (6, 3, 3), conventions=NO_FX),
    Row(
        "vit_pytorch CrossFormer Attention",
        partial(crossformer.Attention, 16, "short", 2, dim_head=4),
        (16, 4, 4),
        conventions=NO_FX | THIRD_GRAPH,
    ),
    Row(
        "vit_pytorch MaxViT Attention",
        partial(max_vit.Attention, 8, 4, window_size=2),
        (2, 2, 2, 2, 8),
        conventions=NO_FX,
    ),
    Row("vit_pytorch Dropsample", max_vit.Dropsample, (3, 5, 6), rates=("prob",), exempt=IDENTITY),
    Row("vit_pytorch PatchMerger", partial(vit_with_patch_merger.PatchMerger, 6, 4), (5, 6)),
    Row(
        "vit_pytorch MobileViTBlock",
        partial(mobile_vit.MobileViTBlock, 6, 1, 5, 3, (2, 2), 7),
        (5, 4, 4),
        conventions=NO_FX,
    ),
)
ROWS = (*TORCH, *TORCHVISION, *TIMM, *TRANSFORMERS, *KORNIA, *VIT_PYTORCH)
