"""The multilayer perceptron that decoders and encoders share."""

from collections.abc import Callable, Sequence

from torch import nn

from probvae._shapes import check_count
from probvae.errors import unknown_name

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def hidden_layers(num_inputs: int, hidden: Sequence[int], activation: str) -> list[nn.Module]:
    """Linear layers of the given widths, each followed by the activation."""
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = []
    for width in hidden:
        check_count(width, "hidden")
        layers += [nn.Linear(num_inputs, width), ACTIVATIONS[activation]()]
        num_inputs = width
    return layers
