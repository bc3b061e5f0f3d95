"""A fitted VAE as ArviZ reads it: draws with named dimensions, for its summaries, plots and files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probvae.diagnostics.weights.importance import importance_diagnostic
from probvae.errors import ArgumentError, ShapeError
from probvae.foundation.checks import check_count
from probvae.foundation.package import __version__
from probvae.foundation.seed import isolated_seed
from probvae.foundation.text import quiet_arviz
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.pair import VAE, check_data

if TYPE_CHECKING:
    import xarray

_DRAWS = ("chain", "draw")


def to_arviz(
    vae: VAE,
    x: Tensor,
    *,
    num_samples: int = 500,
    num_predictive: int = 20,
    labels: Sequence[Any] | np.ndarray | None = None,
    feature_names: Sequence[str] | None = None,
    pareto_k: Tensor | None = None,
    row_numbers: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
) -> Any:
    r"""Draws from the guide, the prior and both predictive distributions, as ArviZ's own object.

    With ArviZ 0.23 an ``arviz.InferenceData``, with 1.x an ``xarray.DataTree``. S = ``num_samples``,
    P = ``num_predictive``; the draws are independent, so they make one chain:

    | group | variable | dimensions |
    |---|---|---|
    | posterior | ``z`` ~ q_x(z) | chain, draw (S), datum, latent |
    | prior | ``z`` ~ p(z) | chain, draw (S), datum, latent |
    | posterior_predictive | ``x`` ~ p(x given z), z ~ q_x | chain, draw (P of the S), datum, feature |
    | prior_predictive | ``x`` ~ p(x given z), z ~ p(z) | chain, draw (P of the S), datum, feature |
    | log_likelihood | ``x``: log p(x given z), z ~ q_x | chain, draw (S), datum |
    | sample_stats | ``log_p``: log p(x, z), ``log_q``: log q_x(z) | chain, draw (S), datum |
    | | ``pareto_k`` of the weights p(x, z) / q_x(z), of 1000 other draws | datum |
    | observed_data | ``x`` | datum, feature |

    Log densities are in nats per datum. The numbers have the type of ``x``: with the defaults, 360 data with 64
    features and two latents make 9 MB in float32, and about as much on disk.

    **The draws are the guide's**, not those of the posterior: what ArviZ summarises is q_x(z). ``log_p - log_q`` are
    the logarithms of the weights that correct it, where ``pareto_k`` allows that.

    **What** ``arviz.loo`` **means here.** Every datum has a z of its own, and the decoder is not fitted again without
    it. Leaving x_n out leaves z_n with its prior, so the expected log predictive density of datum n is the evidence

    .. math:: \log p(x_n \mid x_{-n}) = \log \int p(x_n \mid z)\, p(z)\, dz = \log p(x_n)

    and ``loo`` estimates it by the (smoothed) harmonic mean of p(x_n|z_s), whose weights run from the posterior back to
    the prior: with a guide that is not exact it is biased, and where x says much about z its own Pareto k is above 0.7
    and it warns, rightly (for a linear decoder k = l / (l + c), with l the largest eigenvalue of W^T W). Take
    :func:`~probvae.log_evidence` in its place. That the decoder has seen x_n it does not know: use held-out data.

    Parameters
    ----------
    vae
        A VAE, or ``vae.given(y)``.
    x
        The data (N, D), as the VAE reads them; NaN where it has ``missing="mask"``.
    num_samples
        S, draws for each datum.
    num_predictive
        P, how many of them get an x: the largest groups. ``num_predictive=num_samples`` for ``arviz.loo_pit``.
    labels
        A value for each datum: the coordinate ``label`` beside ``datum``.
    feature_names
        D different names in the place of 0 ... D - 1: the coordinate ``feature``.
    pareto_k
        (N,) from :func:`~probvae.diagnostics.importance_diagnostic`, where it is known already.
    row_numbers
        (N,), what the user calls the rows: the coordinate ``row`` beside ``datum``.
    seed
        Seed of the draws; the caller's random state is left as it was.

    Raises :class:`~probvae.errors.ArgumentError` for a wrong count or wrong names, and
    :class:`~probvae.errors.ShapeError` or :class:`~probvae.errors.DataError` for data that do not fit.
    Source: Kumar, Carroll, Hartikainen and Martin (2019), "ArviZ"; Vehtari, Gelman and Gabry (2017), arXiv:1507.04544,
    for ``loo``.

    >>> import probvae
    >>> result = to_arviz(probvae.VAE.example(), torch.zeros(5, 3), num_samples=30)
    >>> dict(result.posterior["z"].sizes)
    {'chain': 1, 'draw': 30, 'datum': 5, 'latent': 2}
    """
    check_data(vae, x)
    _check_counts(num_samples, num_predictive)
    coords = _coordinates(vae, x, labels, feature_names)
    if row_numbers is not None:
        coords["row"] = ("datum", np.asarray(row_numbers))
    thinned = torch.linspace(0, num_samples - 1, num_predictive).round().long()
    draws = _all_draws(vae, x, num_samples, thinned, seed)
    if pareto_k is None:
        pareto_k = importance_diagnostic(vae, x, seed=seed + 1).pareto_k
    return _as_arviz(
        {
            group: _dataset(variables, coords, thinned if group.endswith("_predictive") else torch.arange(num_samples))
            for group, variables in _groups(draws, x, pareto_k).items()
        }
    )


class _Draws(NamedTuple):
    """Latents (S, N, d), data (P, N, D), and log densities (S, N)."""

    z: Tensor
    prior_z: Tensor
    x: Tensor
    prior_x: Tensor
    log_likelihood: Tensor
    log_p: Tensor
    log_q: Tensor


def _all_draws(vae: VAE, x: Tensor, num_samples: int, thinned: Tensor, seed: int) -> _Draws:
    with isolated_seed(seed, x.device):
        parts = [_draws(part, rows, num_samples, thinned) for part, rows in tiles_within_limit(vae, x, num_samples)]
    return _Draws(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


@torch.no_grad()
def _draws(vae: VAE, x: Tensor, num_samples: int, thinned: Tensor) -> _Draws:
    model, shape = vae.model, torch.Size((num_samples,))
    q, prior = vae.guide.distribution(x), model.prior()
    z, prior_z = q.sample(shape), prior.expand(torch.Size((len(x),))).sample(shape)
    log_likelihood = model.likelihood(model.decode(z)).log_prob(x)
    new_x, prior_x = (model.likelihood(model.decode(values[thinned])).sample() for values in (z, prior_z))
    log_p = prior.log_prob(z) + log_likelihood
    columns = (z, prior_z, new_x, prior_x, log_likelihood, log_p, q.log_prob(z))
    return _Draws(*(column.cpu() for column in columns))


def _groups(draws: _Draws, x: Tensor, pareto_k: Tensor) -> dict[str, dict[str, tuple[tuple[str, ...], Tensor]]]:
    """Each group's variables, with their dimensions."""
    datum = (*_DRAWS, "datum")
    latent, feature = (*datum, "latent"), (*datum, "feature")
    return {
        "posterior": {"z": (latent, draws.z[None])},
        "posterior_predictive": {"x": (feature, draws.x[None])},
        "log_likelihood": {"x": (datum, draws.log_likelihood[None])},
        "sample_stats": {
            "log_p": (datum, draws.log_p[None]),
            "log_q": (datum, draws.log_q[None]),
            "pareto_k": (("datum",), pareto_k.cpu()),
        },
        "prior": {"z": (latent, draws.prior_z[None])},
        "prior_predictive": {"x": (feature, draws.prior_x[None])},
        "observed_data": {"x": (("datum", "feature"), x.cpu())},
    }


def _coordinates(
    vae: VAE, x: Tensor, labels: Sequence[Any] | np.ndarray | None, feature_names: Sequence[str] | None
) -> dict[str, Any]:
    num_data, data_dim = x.shape
    coords: dict[str, Any] = {
        "chain": [0],
        "datum": np.arange(num_data),
        "latent": getattr(vae.model, "latent_names", np.arange(vae.model.latent_dim)),  # a program's sites have names
        "feature": np.arange(data_dim) if feature_names is None else _names(feature_names, data_dim),
    }
    if labels is not None:
        if len(labels) != num_data:
            raise ShapeError(f"labels: expected one for each of {num_data} data, got {len(labels)}. Pass them all.")
        coords["label"] = ("datum", np.asarray(labels))
    return coords


def _names(names: Sequence[str], data_dim: int) -> list[str]:
    found = [str(name) for name in names]
    if len(found) != data_dim or len(set(found)) < data_dim:
        raise ArgumentError(
            f"feature_names: expected {data_dim} different names, one for each column of x, got {len(found)} "
            f"({len(set(found))} different). Leave them out for numbers from 0."
        )
    return found


def _check_counts(num_samples: int, num_predictive: int) -> None:
    check_count(num_samples, "num_samples")
    check_count(num_predictive, "num_predictive")
    if num_predictive > num_samples:
        raise ArgumentError(
            f"num_predictive: expected at most num_samples={num_samples}, got {num_predictive}. Raise num_samples."
        )


def _as_arviz(datasets: dict[str, "xarray.Dataset"]) -> Any:
    inference_data = vars(quiet_arviz()).get("InferenceData")  # asked for as an attribute, 1.x would warn
    if inference_data is not None:
        return inference_data(**datasets)
    import xarray

    return xarray.DataTree.from_dict(datasets)


def _dataset(variables: dict[str, tuple[tuple[str, ...], Tensor]], coords: dict[str, Any], draw: Tensor) -> Any:
    """The variables with the coordinates of their dimensions."""
    import xarray

    used = {name for dims, _ in variables.values() for name in dims}
    own = {name: value for name, value in {**coords, "draw": draw.numpy()}.items() if _dimension(name) in used}
    arrays = {name: (dims, values.numpy()) for name, (dims, values) in variables.items()}
    return xarray.Dataset(arrays, own, {"inference_library": "probvae", "inference_library_version": __version__})


def _dimension(coordinate: str) -> str:
    return "datum" if coordinate in ("label", "row") else coordinate
