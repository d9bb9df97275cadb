"""Mistakes in an MLP."""

from torch import nn
from torch.nn import functional as F

from components import MLP
from tests.components import test_mlp as laws
from tests.components.every import test_lifetime as lifetime
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

init, forward = MLP.__init__, MLP.forward


@exhibit(MLP.forward, laws.test_the_gelu_is_exact)
def tanh_gelu(self, x):
    """The tanh form of the GELU (goodfire-ai/spd#624, sgl-project/sglang#37609)."""
    x = self.dropout(F.gelu(self.fc1(x), approximate="tanh"))
    return self.dropout(self.fc2(x))


@exhibit(MLP.forward, contract.test_the_output_equals_an_independent_float64_reference)
def rectifier(self, x):
    """A rectifier instead of the GELU."""
    x = self.dropout(F.relu(self.fc1(x)))
    return self.dropout(self.fc2(x))


@exhibit(MLP.forward, contract.test_nothing_is_dropped_in_evaluation, rate="dropout")
def functional_dropout(self, x):
    """Dropout stays on in evaluation: the functional form does not check the mode."""
    # facebookresearch/DME#3, Academic-Hammer/SciTSR#16, Coderx7/SimpleNet#2
    x = self.dropout(F.gelu(self.fc1(x)))
    return F.dropout(self.fc2(x), self.dropout.p)


@exhibit(MLP.forward, laws.test_dropout_acts_on_the_hidden_layer_and_on_the_output)
def hidden_layer_kept(self, x):
    """No dropout on the hidden layer."""
    return self.dropout(self.fc2(F.gelu(self.fc1(x))))


@exhibit(MLP.forward, laws.test_any_leading_axes_are_kept)
def axes_flattened(self, x):
    """Leading axes are flattened and not restored."""
    x = self.dropout(F.gelu(self.fc1(x.reshape(-1, x.shape[-1]))))
    return self.dropout(self.fc2(x))


@exhibit(MLP.forward, laws.test_tokens_are_independent)
def tokens_normalised_together(self, x):
    """Tokens are centred together, so they depend on each other."""
    x = self.dropout(F.gelu(self.fc1(x - x.mean(-2, keepdim=True))))
    return self.dropout(self.fc2(x))


@exhibit(MLP.reset_parameters, laws.test_parameters_start_as_in_the_original_code)
def start_of_torch(self):
    """The default initialisation of torch instead of that of the original code."""
    for layer in (self.fc1, self.fc2):
        layer.reset_parameters()


@exhibit(MLP.__init__, contract.test_factory_options_reach_every_tensor_and_the_output, error=(RuntimeError,),
         factory={"device": "meta"})  # fmt: skip
def factory_forgotten(self, dim, mlp_dim, **options):
    """The second layer is built with the default device and dtype."""
    init(self, dim, mlp_dim, **options)
    self.fc2 = nn.Linear(mlp_dim, dim)


@exhibit(MLP.forward, lifetime.test_a_call_without_gradients_leaves_nothing)
def input_kept(self, x):
    """The module keeps its last input, and with it the memory of a batch."""
    self.last = x.detach()
    return forward(self, x)
