"""torch's optimizers without its compiler.

torch marks methods of its optimizers for the compiler, and imports that when one of them is first called, whether
anything is compiled or not. The import takes about as long as that of torch itself. Without the marks they compute the
same, and their steps are not to be compiled.
"""

from inspect import unwrap

import torch


class Untraced(torch.optim.Optimizer):
    """What all optimizers have in common."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(Untraced, torch.optim.SGD):
    """torch's."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class AdamW(Untraced, torch.optim.AdamW):
    """torch's."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
