"""One draw of the true posterior for each datum."""

from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.seed import isolated_seed
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.evidence.quadrature import QuadratureError, QuadratureResult, quadrature
from probvae.inference.linear.closed_form_model import has_exact_posterior
from probvae.inference.linear.exact import exact_posterior
from probvae.inference.pair import VAE
from probvae.models import LatentModel

_TOLERANCE = 1e-3  # nats: the moments are needed to place the grid only
# Cells of the grid along each axis, by the number of latents
_NUM_CELLS = {1: 1024, 2: 64}
_EXTENT = 6.0  # standard deviations on either side
# Added to the seed: data that were simulated with the same seed have the noise of their own z in them.
_STREAM = 0x14057B7E
_NUM_CANDIDATES = 64
_LEAST_ESS = 8.0  # fewer effective candidates would be draws of the grid


class PosteriorDraws(NamedTuple):
    """``z`` (N, d) from p(z|x), and the ``method`` in words."""

    z: Tensor
    method: str


@torch.no_grad()
def posterior_draws(vae: VAE, x: Tensor, seed: int = 0) -> PosteriorDraws:
    r"""z ~ p(z|x) for each row of ``x`` (N, D), from the closed form or, for d <= 2, from a grid.

    On the grid, 64 candidates are drawn from the density that is constant in each cell, and one of them with
    probabilities p(x, z) / (that density): what the grid is too coarse for is corrected.

    .. math:: z \in \{z_1 \dots z_{64}\}, \quad z_k \sim g, \quad P(z = z_k) \propto p(x, z_k) / g(z_k)

    Raises :class:`~probvae.errors.ArgumentError` for a model without closed form in more than two dimensions, and
    :class:`~probvae.inference.quadrature.QuadratureError` where the grid is too coarse.
    Source: Rubin (1987), "The SIR algorithm".

    >>> import probvae
    >>> posterior_draws(probvae.VAE.example(), torch.zeros(5, 3)).method
    'exact posterior'
    """
    with isolated_seed(seed + _STREAM, x.device):
        if has_exact_posterior(vae.model):
            return PosteriorDraws(exact_posterior(vae.model, x).sample(), "exact posterior")
        if vae.model.latent_dim > 2:
            raise ArgumentError(
                "model: there is no draw of the true posterior to compare with: it has no closed form, and with "
                f"latent_dim={vae.model.latent_dim} no grid can be laid over z. Rely on simulated pairs."
            )
        return PosteriorDraws(_from_grids(vae, x), "posterior by numerical integration")


def _from_grids(vae: VAE, x: Tensor) -> Tensor:
    # Rows with the same covariates have the same model, and share a grid of z.
    rows = vae.groups(len(x)) or [torch.arange(len(x), device=x.device)]
    parts = [_one_model(vae.at(group[:1]), x[group]) for group in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _one_model(vae: VAE, x: Tensor) -> Tensor:
    truth = quadrature(vae.model, x, guide=vae.guide, tolerance=_TOLERANCE)
    num_nodes = _NUM_CELLS[vae.model.latent_dim] ** vae.model.latent_dim
    parts, start = [], 0
    with dist.validation_enabled(False):  # a cell may lie outside the prior's support
        for part, rows in tiles_within_limit(vae, x, num_nodes):
            here = slice(start, start + len(rows))
            parts.append(_from_grid(part.model, rows, QuadratureResult(*(value[here] for value in truth))))
            start += len(rows)
    return torch.cat(parts)


def _from_grid(model: LatentModel, x: Tensor, truth: QuadratureResult) -> Tensor:
    """One draw for each row, on a grid about its own mean along the axes of its own covariance."""
    factor = torch.linalg.cholesky(truth.covariance)

    def place(u: Tensor) -> Tensor:
        """From posterior standard deviations (..., N, d) to z."""
        return (truth.mean + torch.einsum("nij,...nj->...ni", factor, u)).to(x)

    centres, width = _cells(model.latent_dim, like=truth.mean)
    log_p = _log_joint(model, x, place(centres.unsqueeze(1).expand(-1, len(x), -1)))
    log_mass = log_p.log_softmax(0)
    chosen = torch.multinomial(log_mass.exp().T, _NUM_CANDIDATES, replacement=True).T
    candidates = place(centres[chosen] + width * (torch.rand(*chosen.shape, centres.shape[1]).to(centres) - 0.5))
    weight = (_log_joint(model, x, candidates) - log_mass.gather(0, chosen)).softmax(0)
    _check_ess(1 / weight.square().sum(0))
    pick = torch.multinomial(weight.T, 1)[:, 0]
    return candidates[pick, torch.arange(len(x), device=x.device)]


def _cells(latent_dim: int, like: Tensor) -> tuple[Tensor, float]:
    """The centres (M, d) of the cells and their width, in posterior standard deviations."""
    num = _NUM_CELLS[latent_dim]
    width = 2 * _EXTENT / num
    axis = (torch.arange(num).to(like) + 0.5) * width - _EXTENT
    return torch.cartesian_prod(*[axis] * latent_dim).reshape(-1, latent_dim), width


def _log_joint(model: LatentModel, x: Tensor, z: Tensor) -> Tensor:
    return model.log_joint(x, z).double().nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _check_ess(ess: Tensor) -> None:
    if (ess < _LEAST_ESS).any():
        raise QuadratureError(
            f"x: for {int((ess < _LEAST_ESS).sum())} of {len(ess)} data the posterior has parts that are too narrow "
            "for the grid. Rely on simulated pairs."
        )
