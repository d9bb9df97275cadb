"""Ways in which other code changes a layer, so that its parameters alone do not give its output any more."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune


class Packed(Tensor):
    """A weight whose products are twice those of its numbers: like a quantised weight, it must not be read directly."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None) -> object:
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
        if function is Tensor.detach:
            return result.as_subclass(cls)  # nn.Parameter requires it
        return 2 * result if function in (nn.functional.linear, torch.conv2d) else result


def replace_forward(layer: nn.Module) -> None:
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)


WAYS = {
    "quantised weight": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.detach().as_subclass(Packed))),
    "replaced forward": replace_forward,
    "parametrisation": lambda layer: parametrize.register_parametrization(layer, "weight", nn.Tanh()),
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "hook": lambda layer: layer.register_forward_hook(lambda layer, args, out: 2 * out),
    "pre-hook": lambda layer: layer.register_forward_pre_hook(lambda layer, args: (2 * args[0],)),
    "backward hook": lambda layer: layer.register_full_backward_hook(lambda layer, slopes, _: (2 * slopes[0],)),
    "backward pre-hook": lambda layer: layer.register_full_backward_pre_hook(lambda layer, slopes: (2 * slopes[0],)),
}
