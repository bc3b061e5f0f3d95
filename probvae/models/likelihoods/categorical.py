"""Columns that hold one of K categories."""

from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae._shapes import check_count, check_finite
from probvae.errors import SupportError
from probvae.models.likelihoods.base import Likelihood


class CategoricalLikelihood(Likelihood, name="categorical"):
    r"""Independent columns of K categories each, coded 0, ..., K - 1; the decoder gives logits.

    .. math:: \log p(x|z) = \sum_i \log \pi_{i, x_i}, \qquad \pi_{ik} = \operatorname{softmax}_k f_{ik}(z)

    The decoder gives D K numbers a datum, the K logits of a column beside each other. A reconstruction shows the most
    probable category.
    Raises :class:`~probvae.errors.SupportError` for data that are no codes below K.
    Source: Murphy (2022), "Probabilistic Machine Learning", section 2.5.

    >>> CategoricalLikelihood(data_dim=3, num_categories=4).num_outputs
    12
    """

    measure = "probability"

    def __init__(self, data_dim: int, num_categories: int) -> None:
        super().__init__(data_dim)
        check_count(num_categories, "num_categories", least=2)
        self.num_categories = num_categories

    @property
    def num_outputs(self) -> int:
        return self.data_dim * self.num_categories

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return Codes(logits=parameters.unflatten(-1, (self.data_dim, self.num_categories))).to_event(1)

    def point(self, parameters: Tensor) -> Tensor:
        logits = parameters.unflatten(-1, (self.data_dim, self.num_categories))
        return logits.argmax(-1).to(parameters.dtype)

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        bad = ((x < 0) | (x >= self.num_categories) | (x != x.round())).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise SupportError(
                f"x: a categorical likelihood needs codes 0 to {self.num_categories - 1}, got "
                f"{x[row, column].item():g} (row {row}, column {column}; {len(bad)} such entries). Use scaling='none', "
                f"or num_categories={int(x.max()) + 1}."
            )

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, num_categories=4)


class Codes(dist.Categorical):
    """A categorical distribution whose values are floating-point codes, as the data's are."""

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return super().sample(sample_shape).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.long())

    @property
    def mean(self) -> Tensor:
        """E of the code: of use for two categories, and for ordered ones."""
        return self.probs @ torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)

    @property
    def variance(self) -> Tensor:
        codes = torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)
        return self.probs @ codes.square() - self.mean.square()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Codes":
        return Codes(logits=self.logits.expand(*torch.Size(batch_shape), self.logits.shape[-1]))
