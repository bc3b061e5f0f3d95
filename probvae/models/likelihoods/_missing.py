"""Densities of data with missing entries."""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError


class ObservedEntries(dist.Independent):
    """Independent entries; an entry that is NaN is missing, and adds nothing to the log density."""

    fill_value: float = 0.0

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density (...) of the observed entries of ``value`` (..., D)."""
        missing = value.isnan()
        log_prob = self.base_dist.log_prob(torch.where(missing, self.fill_value, value))
        return log_prob.masked_fill(missing, 0.0).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ObservedEntries":
        return observed_entries(self.base_dist.expand(torch.Size(batch_shape) + self.event_shape), self.fill_value)


def observed_entries(p: dist.TorchDistribution, fill_value: float) -> ObservedEntries:
    """p(x|z) for x with NaN. ``fill_value`` is an element of the support, and its density is left out again."""
    if isinstance(p, torch.distributions.Independent) and p.reinterpreted_batch_ndims == 1:
        p = p.base_dist
    elif p.event_shape:
        raise ArgumentError(
            f"missing: expected a likelihood whose entries are independent given z, got {type(p).__name__}. "
            "Use missing='refuse' and drop the rows with missing entries."
        )
    result = ObservedEntries(p, 1)
    result.fill_value = fill_value
    return result
