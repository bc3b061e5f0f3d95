"""Data sets like the observed one, drawn from the model."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.diagnostics.prediction.data_statistics import Statistic, evaluate
from probvae.inference.evaluation import bounds as evaluation
from probvae.inference.evaluation.bounds import widest_layer
from probvae.inference.pair import VAE

_LIVE_COPIES = 6


@torch.no_grad()
def replicated_statistics(
    vae: VAE, x: Tensor, statistics: Mapping[str, Statistic], num_replicates: int, p: Distribution
) -> Tensor:
    """The statistics (R, K) of R data sets like ``x`` (N, D): z ~ p for each datum, x ~ p(x|z), and the same holes.

    ``p`` is the prior (batch_shape () or (N,)), or the guide's distribution for x.
    """
    size = _sets_at_once(vae, x)
    counts = [min(size, num_replicates - start) for start in range(0, num_replicates, size)]
    return torch.cat([evaluate(statistics, _replicates(vae, x, p, count)) for count in counts])


def _replicates(vae: VAE, x: Tensor, p: Distribution, number: int) -> Tensor:
    z = p.sample(torch.Size((number,) if p.batch_shape else (number, len(x))))
    return vae.model.likelihood(vae.model.decoder(z)).sample().masked_fill(x.isnan(), torch.nan)


def _sets_at_once(vae: VAE, x: Tensor) -> int:
    width = max(widest_layer(vae.model), x.shape[1])
    return max(1, evaluation.current_limit() // (_LIVE_COPIES * x.element_size() * width * len(x)))
