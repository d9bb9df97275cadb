"""Crop boxes and resize them, a whole batch at once: bilinear where they grow, antialiased where they shrink.

output = rows @ box @ columns^T

Every output pixel is a weighted mean of the pixels around its centre in the box. The weights are a tent, widened to the
output pixel where that spans more than one pixel, and cut off at the edge of the box. Tents are separable, so that the
weights of each image are two small matrices, and resizing a batch is two matrix products.

Letters: B images, C channels, H W pixels of the images, h w pixels of the output.

Convention: pixels are squares, and the edges of box and output coincide. Equal to ``resized_crop`` of torchvision's
transforms.v2 within one level of 255, as that rounds to whole levels once in each direction.
"""

import torch
from torch import Tensor


def resampled(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize one box of every image.

    Args:
        images: uint8 (B, C, H, W).
        boxes: (B, 4): top, left, height and width in pixels, inside the frame, on the device of the images.
        size: h and w.

    Returns:
        uint8 (B, C, h, w), channels last.
    """
    count, channels, height, width = images.shape
    top, left, rows, columns = boxes.float().unbind(1)
    down = _tents(top, rows, height, size[0])  # (B, h, H)
    right = _tents(left, columns, width, size[1])  # (B, w, W)
    x = images.permute(0, 3, 2, 1).reshape(count, width, height * channels).float()  # (B, W, H C)
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has fewer steps than an image has levels
        x = torch.bmm(right, x).view(count, size[1], height, channels)  # (B, w, H, C)
        x = torch.bmm(down, x.transpose(1, 2).reshape(count, height, size[1] * channels))  # (B, h, w C)
    return x.round_().byte().view(count, *size, channels).permute(0, 3, 1, 2)


def _tents(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Weights of the source pixels for every output pixel along one axis: (B,) and (B,) -> (B, target, source)."""
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    span = length / target  # of an output pixel, in source pixels
    places = torch.arange(source, device=start.device) + 0.5 - start  # (B, 1, source), from the edge of the box
    centres = (torch.arange(target, device=start.device).unsqueeze(1) + 0.5) * span  # (B, target, 1)
    tents = (1 - (places - centres).abs() / span.clamp(min=1)).clamp(min=0)
    tents = tents * ((places > 0) & (places < length))
    return tents / tents.sum(2, keepdim=True)
