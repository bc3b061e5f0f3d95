"""A reference posterior by the No-U-Turn sampler, with the conditions under which it may be called one."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probvae.errors import FitError
from probvae.foundation.checks import check_count, check_matrix
from probvae.foundation.seed import isolated_seed
from probvae.foundation.text import quiet_arviz
from probvae.models import LatentModel

# Vehtari et al. (2021): draws may be trusted below this R-hat, and with this many effective draws over all chains
MAX_R_HAT = 1.01
MIN_ESS = 400.0


class NotAReferenceError(FitError):
    """The chains did not mix well enough to be compared with."""


@dataclass(frozen=True)
class NutsResult:
    """``samples`` (chains, draws, N, d); ``r_hat`` and ``ess`` (N, d); the number of divergent transitions."""

    samples: Tensor
    r_hat: Tensor
    ess: Tensor
    num_divergent: int

    @property
    def reason(self) -> str | None:
        """The reason why the draws are no reference; None where they are."""
        if not self.r_hat.max() <= MAX_R_HAT:
            return f"R-hat is {self.r_hat.max().item():.3f}, above {MAX_R_HAT}"
        if not self.ess.min() >= MIN_ESS:
            return f"the effective sample size is {self.ess.min().item():.0f}, below {MIN_ESS:.0f}"
        if self.num_divergent:
            return f"{self.num_divergent} transitions diverged"
        return None

    @property
    def is_reference(self) -> bool:
        """True where the draws are good enough to compare others with."""
        return self.reason is None

    def require_reference(self) -> "NutsResult":
        """These draws, or :class:`NotAReferenceError` with the reason."""
        if self.reason is not None:
            raise NotAReferenceError(f"NUTS: {self.reason}. Raise num_samples and num_warmup, or take fewer data.")
        return self

    def mean(self) -> Tensor:
        """The posterior mean (N, d)."""
        return self.samples.mean((0, 1))

    def mcse(self) -> Tensor:
        """The Monte Carlo standard error (N, d) of the posterior mean: sd / sqrt(ess)."""
        return self.samples.flatten(0, 1).std(0) / self.ess.sqrt()


def nuts_reference(
    model: LatentModel,
    x: Tensor,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 2,
    seed: int = 0,
) -> NutsResult:
    """Draws from p(z|x) for the few data ``x`` (N, D), by Pyro's NUTS, with R-hat and bulk ess from ArviZ.

    The chains start at draws of the prior and run one after another. Ask ``result.is_reference`` before comparing
    with them, or call ``result.require_reference()``.

    Raises :class:`~probvae.errors.ShapeError` or :class:`~probvae.errors.ArgumentError` for bad arguments.
    Source: Hoffman and Gelman (2014), "The No-U-Turn Sampler"; Vehtari et al. (2021), "Rank-normalization, folding,
    and localization: An improved R-hat", for the thresholds.

    >>> import probvae
    >>> result = nuts_reference(probvae.VAE.example().model, torch.zeros(1, 3), num_samples=5, num_warmup=5)
    >>> result.samples.shape, result.is_reference
    (torch.Size([2, 5, 1, 2]), False)
    """
    for name, value in (("num_samples", num_samples), ("num_warmup", num_warmup)):
        check_count(value, name, least=4)
    check_count(num_chains, "num_chains", least=2)
    check_matrix(x, model.data_dim)
    model.likelihood.check_data(x)
    with isolated_seed(seed, x.device):
        runs = [_chain(model, x, num_samples, num_warmup) for _ in range(num_chains)]
    samples = torch.stack([z for z, _ in runs])
    r_hat, ess = _diagnostics(samples)
    return NutsResult(samples, r_hat, ess, sum(divergent for _, divergent in runs))


def _chain(model: LatentModel, x: Tensor, num_samples: int, num_warmup: int) -> tuple[Tensor, int]:
    from pyro.infer import MCMC, NUTS

    start = {"z": model.prior().sample(x.shape[:1])}
    mcmc: Any = MCMC(NUTS(model), num_samples, num_warmup, initial_params=start, disable_progbar=True)
    mcmc.run(x)
    z = mcmc.get_samples()["z"].reshape(num_samples, *start["z"].shape)
    divergences = mcmc.diagnostics()["divergences"]
    return z, sum(len(steps) for steps in divergences.values())


def _diagnostics(samples: Tensor) -> tuple[Tensor, Tensor]:
    """R-hat and bulk ess (N, d) from ArviZ."""
    import xarray

    arviz = quiet_arviz()
    values = np.ascontiguousarray(samples.double().cpu().numpy())
    data = xarray.Dataset({"z": (("chain", "draw", "datum", "latent"), values)})
    with warnings.catch_warnings():
        # ArviZ warns of too few draws: NaN says that well enough
        warnings.simplefilter("ignore")
        r_hat, ess = arviz.rhat(data)["z"].to_numpy(), arviz.ess(data)["z"].to_numpy()
    return torch.from_numpy(np.asarray(r_hat)), torch.from_numpy(np.asarray(ess))
