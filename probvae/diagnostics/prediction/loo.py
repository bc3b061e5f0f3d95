"""Leave-one-out prediction through ArviZ, and its meaning for a model where each datum has latents of its own."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probvae.diagnostics.verdicts import NotComputed, mean_with_error
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import isolated_seed
from probvae.foundation.text import quiet_arviz
from probvae.inference.evaluation.memory import draw_z
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.evidence.pareto_smoothing import good_pareto_k
from probvae.inference.pair import VAE

NUM_DRAWS = 400
_LEAST_DRAWS = 100
_MEANING = (
    "with fixed parameters the data are independent, so log p(x_n | all other data) is log p(x_n) itself, which "
    "log_evidence gives better. PSIS-LOO estimates it from draws of q(z|x_n) with the weights 1 / p(x_n|z), which have "
    "to turn the posterior into the prior; where pareto_k is above good_k they do not"
)


@dataclass(frozen=True)
class Loo:
    """PSIS-LOO: ``elpd`` (N,) in nats per datum and ``pareto_k`` (N,), trustworthy up to ``good_k``."""

    elpd: Tensor
    pareto_k: Tensor
    good_k: float

    @property
    def num_bad(self) -> int:
        """How many data have a k-hat above ``good_k``."""
        return int((self.pareto_k > self.good_k).sum())

    def summary(self) -> dict[str, Any]:
        return {
            "elpd_loo": mean_with_error(self.elpd),
            "good_k": self.good_k,
            "num_above_good_k": self.num_bad,
            "meaning": _MEANING,
        }


def psis_loo(vae: VAE, x: Tensor, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Loo | NotComputed:
    r"""ArviZ's ``loo`` on the pointwise log likelihood log p(x_n|z_ns), z_ns ~ q(z|x_n), for each datum.

    .. math:: \log p(x_n | x_{-n}) \approx - \log \frac1S \sum_s \frac{1}{p(x_n|z_{ns})}, \qquad \text{smoothed}

    With the parameters fixed, what it approximates is log p(x_n), because z_n is seen by x_n alone. The harmonic mean
    is a poor way to it: the weights have an infinite variance unless the posterior is wide. It is here for those who
    know loo from other models; k-hat says for which data it may be read. ``x`` is (N, D).
    Source: Vehtari, Gelman and Gabry (2017), arXiv:1507.04544, equation 7.

    >>> import probvae
    >>> psis_loo(probvae.VAE.example(), torch.zeros(5, 3), num_draws=200).elpd.shape
    torch.Size([5])
    """
    if num_draws < _LEAST_DRAWS:
        return NotComputed(
            "prediction/loo", f"{num_draws} draws are too few for the tail of the weights; take at least {_LEAST_DRAWS}"
        )
    with isolated_seed(seed, x.device):
        log_likelihood = torch.cat(
            [_log_likelihood(*tile, num_draws, seed) for tile in tiles_within_limit(vae, x, num_draws)], dim=1
        )
    result = _arviz_loo(log_likelihood.double().cpu().numpy())
    elpd = result.elpd_i if hasattr(result, "elpd_i") else result.loo_i  # since and before ArviZ 1
    elpd, pareto_k = (torch.from_numpy(np.array(values)) for values in (elpd, result.pareto_k))
    return Loo(elpd, pareto_k, good_pareto_k(num_draws))


@torch.no_grad()
def _log_likelihood(vae: VAE, x: Tensor, num_draws: int, seed: int) -> Tensor:
    z = draw_z(vae, x, vae.guide.distribution(x), num_draws, RowNoise(row_keys(x), seed))
    return vae.model.likelihood(vae.model.decode(z)).log_prob(x)


def _arviz_loo(log_likelihood: "np.ndarray[Any, Any]") -> Any:
    with warnings.catch_warnings():
        # ArviZ warns of large k-hats, which are in the result
        warnings.simplefilter("ignore")
        arviz = quiet_arviz()
        values = log_likelihood[None]
        groups: Any = {"posterior": {"z": values[..., :1]}, "log_likelihood": {"x": values}}
        old = int(arviz.__version__.split(".")[0]) < 1
        return arviz.loo(arviz.from_dict(**groups) if old else arviz.from_dict(groups), pointwise=True, reff=1.0)
