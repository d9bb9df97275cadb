"""torch's optimizers without the import of its compiler.

torch decorates methods of its optimizers for the compiler, which the first call of one imports even if nothing is
compiled. The import takes about as long as that of torch. Here the decorators are removed: the results are the same,
but the steps cannot be compiled.
"""

from inspect import unwrap

import torch


class Untraced(torch.optim.Optimizer):
    """The undecorated methods of the base class."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(Untraced, torch.optim.SGD):
    """torch's SGD."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class AdamW(Untraced, torch.optim.AdamW):
    """torch's AdamW."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
