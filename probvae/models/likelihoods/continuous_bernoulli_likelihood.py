"""Grey values in [0, 1], with the normaliser that binary cross-entropy lacks."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_finite
from probvae.models.likelihoods.base import Likelihood
from probvae.models.likelihoods.bernoulli_likelihood import check_unit_interval


class ContinuousBernoulliLikelihood(Likelihood, name="continuous-bernoulli"):
    r"""Independent dimensions in [0, 1]; the decoder gives log-odds.

    .. math:: \log p(x|z) = \sum_i \log C(\lambda_i) + x_i \log \lambda_i + (1 - x_i) \log(1 - \lambda_i),
              \qquad C(\lambda) = \frac{2 \operatorname{artanh}(1 - 2\lambda)}{1 - 2\lambda}, \quad C(1/2) = 2

    with lambda = sigmoid(f(z)). Raises :class:`~probvae.errors.SupportError` for values outside [0, 1].
    Source: Loaiza-Ganem and Cunningham (2019), arXiv:1907.06845, equations 4 to 6.

    >>> import torch
    >>> ContinuousBernoulliLikelihood(data_dim=3)(torch.zeros(5, 3)).event_shape
    torch.Size([3])
    """

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.ContinuousBernoulli(logits=parameters).to_event(1)

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        check_unit_interval(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)
