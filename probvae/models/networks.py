"""The networks that decoders and encoders share."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from probvae.errors import ArgumentError, ShapeError, unknown_name
from probvae.foundation.checks import check_count

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
_KERNEL, _STRIDE, _PADDING = 3, 2, 1


def hidden_layers(
    num_inputs: int, hidden: Sequence[int], activation: str, layer_norm: bool = False, dropout: float = 0.0
) -> list[nn.Module]:
    """Linear layers of the widths ``hidden`` from (..., num_inputs) on, each with norm, activation and dropout."""
    make = activation_of(activation)
    check_dropout(dropout)
    check_flag(layer_norm, "layer_norm")
    layers: list[nn.Module] = []
    for width in hidden:
        check_count(width, "hidden")
        layers.append(nn.Linear(num_inputs, width))
        layers += [nn.LayerNorm(width)] * layer_norm + [make()] + [nn.Dropout(dropout)] * (dropout > 0)
        num_inputs = width
    return layers


def activation_of(name: str) -> Callable[[], nn.Module]:
    """The class of the activation ``name``."""
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def check_dropout(dropout: float) -> None:
    """Raise unless ``dropout`` is a probability below one."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ArgumentError(f"dropout: expected a probability in [0, 1), got {dropout!r}.")


def check_flag(value: bool, name: str) -> None:
    """Raise unless ``value`` is True or False: another truthy value is a mistake, not a yes."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name}: expected true or false, got {value!r}.")


def check_channels(channels: Sequence[int]) -> None:
    """Raise unless ``channels`` has a positive count for each of one layer or more."""
    if not isinstance(channels, Sequence) or isinstance(channels, str) or not channels:
        raise ArgumentError(f"channels: expected a count for each layer, as in [32, 64], got {channels!r}.")
    for count in channels:
        check_count(count, "channels")


def image_size(image_shape: Sequence[int], data_dim: int) -> tuple[int, int, int]:
    """(channels, height, width) from [H, W] or [C, H, W], whose product is ``data_dim``."""
    if not isinstance(image_shape, Sequence) or isinstance(image_shape, str) or len(image_shape) not in (2, 3):
        raise ShapeError(f"image_shape: expected [H, W] or [C, H, W], got {image_shape!r}. Write [28, 28].")
    sizes = tuple(image_shape)
    for size in sizes:
        check_count(size, "image_shape")
    channels, height, width = sizes if len(sizes) == 3 else (1, *sizes)
    if channels * height * width != data_dim:
        raise ShapeError(
            f"image_shape: expected {data_dim} pixels (data_dim), got {list(image_shape)}, which has "
            f"{channels * height * width}. Give the shape that a row of the data has."
        )
    return channels, height, width


def halved(size: int, times: int) -> list[int]:
    """``size``, and the sizes after each of ``times`` strided convolutions."""
    sizes = [size]
    for _ in range(times):
        sizes.append((sizes[-1] + 2 * _PADDING - _KERNEL) // _STRIDE + 1)
    return sizes


def down(num_in: int, num_out: int) -> nn.Conv2d:
    """A convolution that halves height and width (rounded up): (N, num_in, H, W) to (N, num_out, H/2, W/2)."""
    return nn.Conv2d(num_in, num_out, _KERNEL, _STRIDE, _PADDING)


def up(num_in: int, num_out: int, odd: tuple[bool, bool]) -> nn.ConvTranspose2d:
    """The reverse of :func:`down`; ``odd`` says for height and width whether twice as many pixels are one too many."""
    padding = (0 if odd[0] else 1, 0 if odd[1] else 1)
    return nn.ConvTranspose2d(num_in, num_out, _KERNEL, _STRIDE, _PADDING, output_padding=padding)


class Rows(nn.Module):
    """A module for (N, *event) used on (..., *event): leading dimensions are joined, and split again afterwards."""

    def __init__(self, module: nn.Module, num_event_dims: int) -> None:
        super().__init__()
        self.module, self.num_event_dims = module, num_event_dims

    def forward(self, x: Tensor) -> Tensor:
        """The module's output for ``x``, as for (N, P) or (N, C, H, W), with any leading dimensions for N."""
        leading = x.shape[: x.ndim - self.num_event_dims]
        output: Tensor = self.module(x.reshape(-1, *x.shape[x.ndim - self.num_event_dims :]))
        return output.reshape(*leading, *output.shape[1:])
