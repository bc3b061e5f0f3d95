"""Binary data."""

from typing import Any, Self

from pyro import distributions as dist
from torch import Tensor, nn

from probvae.errors import SupportError
from probvae.foundation.checks import check_finite
from probvae.foundation.torch_internals import check_value, instance_for_expand, validates
from probvae.models.likelihoods.base import Likelihood


class BernoulliLikelihood(Likelihood, name="bernoulli"):
    r"""Independent binary dimensions; the decoder gives log-odds.

    .. math:: \log p(x|z) = \sum_i x_i \log \pi_i + (1 - x_i) \log(1 - \pi_i), \qquad \pi = \sigma(f(z))

    Grey values in (0, 1) have no probability under it. With ``allow_grey=True`` they are accepted, and the formula
    is the binary cross-entropy of many published VAEs: **not a likelihood**, so that no bound, evidence or gap made
    from it means anything. The option exists to reproduce such VAEs.

    Raises :class:`~probvae.errors.SupportError` for data that are not 0 or 1.
    Source: Kingma and Welling (2014), arXiv:1312.6114, appendix C.1.

    >>> import torch
    >>> BernoulliLikelihood(data_dim=3)(torch.zeros(5, 3)).log_prob(torch.ones(5, 3))[0].exp()
    tensor(0.1250)
    """

    bounds = (0.0, 1.0)

    def __init__(self, data_dim: int, allow_grey: bool = False) -> None:
        super().__init__(data_dim)
        self.allow_grey = allow_grey
        self.measure = "none" if allow_grey else "probability"

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        if self.allow_grey:  # torch's own validation would refuse the grey values that the caller has allowed
            return StableBernoulli(logits=parameters, validate_args=False).to_event(1)
        return BinaryEntries(StableBernoulli(logits=parameters), 1)

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        if self.allow_grey:
            check_unit_interval(x)
        elif not ((x == 0) | (x == 1)).all():
            raise SupportError(
                "x: a Bernoulli likelihood needs values 0 and 1, got grey values between "
                f"{x.min().item():g} and {x.max().item():g}. Binarise the data once (binarization='fixed'), binarise "
                "them afresh at every use (binarization='fresh'), or take ContinuousBernoulliLikelihood "
                "('continuous-bernoulli')."
            )

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)


class StableBernoulli(dist.Bernoulli):
    """torch's, with a variance p (1 - p) that keeps its digits where p is nearly one."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StableBernoulli":
        return super().expand(batch_shape, instance_for_expand(self, StableBernoulli, _instance))

    @property
    def variance(self) -> Tensor:
        """sigmoid(l) sigmoid(-l), of batch_shape."""
        return self.logits.sigmoid() * (-self.logits).sigmoid()


class BinaryEntries(dist.Independent):
    r"""Independent entries that are 0 or 1, log p(x) = -\sum_i \log(1 + e^{(1 - 2 x_i) l_i}) for their log-odds l.

    The same number as torch's, in half as many passes over memory.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (...) of ``value`` (..., D)."""
        check_value(self.base_dist, value, validates(self) or validates(self.base_dist))
        # Above the threshold torch takes the identity, which is exact there in float64
        return -nn.functional.softplus((1 - 2 * value) * self.base_dist.logits, threshold=40).sum(-1)


def check_unit_interval(x: Tensor) -> None:
    """Raise unless every value of ``x`` (N, D) lies in [0, 1]."""
    if x.min() < 0 or x.max() > 1:
        raise SupportError(
            f"x: expected values in [0, 1], got {x.min().item():g} to {x.max().item():g}. "
            "Scale the data (scaling='unit'), or take a Gaussian likelihood."
        )
