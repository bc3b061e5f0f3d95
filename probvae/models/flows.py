"""Normalising flows by zuko: the one place that imports it."""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from probvae.foundation.checks import check_count
from probvae.foundation.torch_internals import validation_kept

# A layer moves one half of the dimensions by means of the other half: two passes invert it in any dimension
_PASSES = 2
# A layer's own factor stays between 1/100 and 100, because the inverse of several larger ones loses its digits
_SMALLEST_FACTOR = 1e-2


def flow_transform(
    features: int,
    context: int = 0,
    num_transforms: int = 2,
    hidden: Sequence[int] = (32, 32),
    num_bins: int = 8,
) -> nn.Module:
    r"""A lazy transform T_c of R^d that begins as the identity: ``flow(c)`` is a ``torch.distributions.Transform``.

    .. math:: y_i = a_i + b_i S_i(x_i), \qquad (a_i, b_i, S_i) = \text{network}(x_{\text{other half}}, c)

    in each of ``num_transforms`` layers; S is a monotone rational-quadratic spline of ``num_bins`` bins on [-5, 5], and
    the identity outside. A call takes one pass of each network, an inverse two, for every number of ``features`` d.
    ``c`` (..., context) broadcasts against x (..., d); it is None where ``context`` is 0. ``hidden`` are the widths of
    each network's layers.
    Raises :class:`~probvae.errors.ArgumentError` for counts below one.
    Source: Durkan et al. (2019), arXiv:1906.04032; Dinh, Sohl-Dickstein and Bengio (2017), arXiv:1605.08803.

    >>> flow = flow_transform(features=2, context=3)
    >>> bool(torch.allclose(flow(torch.zeros(3))(torch.ones(5, 2)), torch.ones(5, 2)))
    True
    """
    for name, value in {"features": features, "num_transforms": num_transforms, "num_bins": num_bins}.items():
        check_count(value, name)
    check_count(context, "context", least=0)
    for width in hidden:
        check_count(width, "hidden")
    # zuko switches torch's argument validation off when it is imported, for all distributions there are
    with validation_kept():
        from zuko.flows.autoregressive import MaskedAutoregressiveTransform
        from zuko.lazy import LazyComposedTransform
    options = {
        "passes": _PASSES,
        "univariate": _affine_spline,
        "shapes": [(), (), (num_bins,), (num_bins,), (num_bins - 1,)],
        "hidden_features": tuple(hidden),
        "activation": nn.SiLU,
    }
    orders = _orders(features, num_transforms)
    layers = [MaskedAutoregressiveTransform(features, context, order=order, **options) for order in orders]
    for layer in layers:
        _begin_as_identity(layer)
    return LazyComposedTransform(*layers)


def _affine_spline(shift: Tensor, scale: Tensor, *spline: Tensor) -> Transform:
    """x -> shift + exp(scale) S(x): the spline alone would leave everything beyond its bound where it is."""
    from zuko.transforms import ComposedTransform, MonotonicAffineTransform, MonotonicRQSTransform

    return ComposedTransform(MonotonicRQSTransform(*spline), MonotonicAffineTransform(shift, scale, _SMALLEST_FACTOR))


def _orders(features: int, num_transforms: int) -> Iterator[Tensor]:
    """The lower half first, then the upper; then the even dimensions first, then the odd; and so on."""
    ascending = torch.arange(features)
    halves = ascending // 2 + (ascending % 2) * ((features + 1) // 2)
    return islice(cycle([ascending, ascending.flip(0), halves, features - 1 - halves]), num_transforms)


@torch.no_grad()
def _begin_as_identity(layer: nn.Module) -> None:
    """All outputs of the layer's network at zero: shift 0, scale 1, and a spline of equal bins and unit slopes."""
    linear = [module for module in layer.modules() if isinstance(getattr(module, "weight", None), Tensor)]
    # One dimension without context needs no network: the layer's parameters are the outputs themselves
    last = linear[-1] if linear else layer
    for parameter in last.parameters():
        parameter.zero_()
