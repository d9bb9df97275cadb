"""What modules of other libraries promise instead of an item, and where a check does not fit."""

# what these modules promise instead, or what torch has not: breaking it is no defect
NO_EMPTY = {"shape": "it promises nothing for an empty batch, and computes a size by dividing by it"}
NO_FX = {"torch.fx": "it promises nothing for `torch.fx`: it unpacks a shape, or checks its input"}
FUSED = dict.fromkeys(("second derivatives", "forward mode"), "torch has neither for its fused attention on a CPU")
IN_FLOAT32 = "it computes softmax or statistics in float32 by design, for float64 too: the check asks for more digits"
STATISTICS = dict.fromkeys(("first derivatives", "second derivatives"), IN_FLOAT32)
NO_MASK_GRADIENT = "torch has no fused attention whose mask needs a gradient, on a CPU"
SINGLE = STATISTICS | {"forward mode": IN_FLOAT32}
IN_PLACE = {"wrapped layers": "an activation works in place, which torch does not allow behind a backward hook"}
RECURRENT = dict.fromkeys(
    ("per-sample gradients", "compile", "vmap"), "torch says that its RNNs do not take part in `vmap` and Dynamo"
)
NO_BFLOAT16 = dict.fromkeys(("dtype and device", "moves", "half precision"), "it has no kernel for bfloat16 on a CPU")
FREQUENCIES = dict.fromkeys(("factory options", "moves"), "it keeps its frequencies in float32 by design")
READS = {"cuda without a GPU": "it checks a value that is on the GPU, which waits for it"}
MOVES_CONSTANTS = {"mixed devices": "it moves its fixed weights to wherever the input is"}
FIXED_WEIGHTS = {"wrapped layers": "its layer holds fixed weights, which nobody adapts"}
BOUNDED = {"export": "`torch.export` needs a largest batch, `Dim(..., max=...)`, and exports it with one"}
THIRD_GRAPH = {"compile": "torch chooses its convolution by the size: a third graph below a batch of 4, and no more"}
NO_GRADIENT = {"every parameter learns": "softmax takes out the bias of its logits, so that it has no gradient"}

# where the check itself does not fit
DRIVER = dict.fromkeys(("cuda without a GPU", "mixed devices"), "on a GPU cuDNN asks for a driver")
FAKE = dict.fromkeys(("cuda without a GPU", "mixed devices"), "torch cannot build it with tensors without values")
NOT_ON_FAKE = {"cuda without a GPU": "its backward pass is no node that can be called alone"}
IDENTITY = {"cuda without a GPU": "with nothing to drop it returns its input, which has no graph"}
