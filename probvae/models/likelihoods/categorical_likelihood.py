"""Columns that hold one of K categories."""

from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_count
from probvae.models.likelihoods.base import Likelihood, check_entries


class CategoricalLikelihood(Likelihood, name="categorical"):
    r"""Independent columns of K categories each, coded 0, ..., K - 1; the decoder gives logits.

    .. math:: \log p(x|z) = \sum_i \log \pi_{i, x_i}, \qquad \pi_{ik} = \operatorname{softmax}_k f_{ik}(z)

    The decoder gives D K outputs a datum, the K logits of a column beside each other. A reconstruction shows the most
    probable category.
    Raises :class:`~probvae.errors.SupportError` for data that are no codes below K.
    Source: Murphy (2022), "Probabilistic Machine Learning", section 2.5.

    >>> CategoricalLikelihood(data_dim=3, num_categories=4).num_outputs
    12
    """

    point_name = "mode of p(x|z)"
    measure = "probability"

    def __init__(self, data_dim: int, num_categories: int) -> None:
        super().__init__(data_dim)
        check_count(num_categories, "num_categories", least=2)
        self.num_categories = num_categories

    @property
    def num_outputs(self) -> int:
        return self.data_dim * self.num_categories

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        logits = parameters.unflatten(-1, (self.data_dim, self.num_categories))
        # torch's own normaliser subtracts numbers as large as the logits; log_softmax subtracts the largest one first.
        return Codes(logits=logits.log_softmax(-1)).to_event(1)

    def point(self, parameters: Tensor) -> Tensor:
        logits = parameters.unflatten(-1, (self.data_dim, self.num_categories))
        return logits.argmax(-1).to(parameters.dtype)

    def check_support(self, x: Tensor) -> None:
        highest = self.num_categories - 1
        whole = (x >= 0) & (x == x.round())
        fix = "scaling='none', and code the categories as 0, 1, 2, ..."
        if whole.all() and (x > highest).any():
            fix = f"num_categories={int(x.max()) + 1}"
        check_entries(x, whole & (x <= highest), f"a categorical likelihood needs codes 0 to {highest}", fix)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, num_categories=4)


class Codes(dist.Categorical):
    """A categorical distribution whose values are floating-point codes, as the data's are."""

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Codes (sample_shape, ..., D)."""
        return super().sample(sample_shape).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """E of the code (..., D), which is meaningful for two categories, and for ordered ones."""
        return self.probs @ torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)

    @property
    def variance(self) -> Tensor:
        """Variance of the code (..., D)."""
        codes = torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)
        return self.probs @ codes.square() - self.mean.square()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Codes":
        return Codes(logits=self.logits.expand(*torch.Size(batch_shape), self.logits.shape[-1]))
