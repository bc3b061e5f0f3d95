"""The likelihood of the derivation: N(f(z), c I)."""

from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.errors import ArgumentError, unknown_name
from probvae.foundation.checks import check_finite, check_positive
from probvae.models.likelihoods._scale import floor_message
from probvae.models.likelihoods.base import Likelihood

VARIANCE_MODES = {
    "learned": "one parameter, trained with the rest",
    "per-dimension": "one parameter a data dimension, trained with the rest",
    "per-datum": "a function of z: the decoder's last output is log c",
    "optimal": "the closed form (1/D) E_x E_q |x - f(z)|^2, set after each epoch",
}


class GaussianLikelihood(Likelihood, name="gaussian"):
    r"""Normal with variance c, p(x|z) = N(f(z), c I).

    .. math:: \log p(x|z) = -\frac{1}{2c} \lVert x - f(z) \rVert^2 - \frac{D}{2} \log 2\pi c

    Rocca's weight on the squared error is C = 1/(2c).

    Parameters
    ----------
    data_dim
        D.
    variance
        c, a *variance* in squared units of x: a number (fixed), ``"learned"`` (one parameter),
        ``"per-dimension"`` (D parameters), ``"per-datum"`` (log c is one output more of the decoder), or
        ``"optimal"`` (:func:`probvae.inference.optimal_variance` after each epoch of the fit).
    initial_variance
        The start of a c that is not fixed. The mean variance of the data's columns is a good choice.
    minimum_variance
        The floor of a c that is not fixed. Where the data lie on a surface that the decoder can reach,
        the likelihood has no finite maximum, and c falls to its floor (Dai and Wipf 2019); the fit then
        warns with :class:`~probvae.errors.FloorWarning`.

    Raises :class:`~probvae.errors.ArgumentError` for a variance that is not positive or an unknown mode.
    Source: Rocca (2019); Rybkin, Daniilidis and Levine (2021), arXiv:2006.13202, for the optimal variance.

    >>> p = GaussianLikelihood(data_dim=3, variance=0.25)(torch.zeros(5, 3))
    >>> p.batch_shape, p.event_shape
    (torch.Size([5]), torch.Size([3]))
    """

    fixed_variance: Tensor

    def __init__(
        self,
        data_dim: int,
        variance: float | str = "learned",
        initial_variance: float = 1.0,
        minimum_variance: float = 1e-6,
    ) -> None:
        super().__init__(data_dim)
        check_positive(initial_variance, "initial_variance")
        check_positive(minimum_variance, "minimum_variance")
        self.mode = _mode(variance)
        self.minimum_variance = minimum_variance
        if self.mode != "fixed" and initial_variance <= minimum_variance:
            raise ArgumentError(
                f"initial_variance: expected more than minimum_variance={minimum_variance:g}, "
                f"got {initial_variance:g}. Lower minimum_variance, or rescale the data."
            )
        if self.mode in ("learned", "per-dimension"):
            shape = () if self.mode == "learned" else (data_dim,)
            start = torch.full(shape, initial_variance - minimum_variance).log()
            self.log_variance = nn.Parameter(start)
        else:
            self._number = float(variance) if self.mode == "fixed" else float(initial_variance)
            self.register_buffer("fixed_variance", torch.tensor(self._number))

    @property
    def num_outputs(self) -> int:
        return self.data_dim + (self.mode == "per-datum")

    def variance(self, parameters: Tensor) -> Tensor:
        """c, in squared units of x: (), (D,), or per datum (..., 1) from ``parameters`` (..., num_outputs)."""
        if self.mode in ("learned", "per-dimension"):
            return self.minimum_variance + self.log_variance.exp()
        if self.mode == "per-datum":
            return self.minimum_variance + self.fixed_variance * parameters[..., -1:].exp()
        return self.fixed_variance

    def mean(self, parameters: Tensor) -> Tensor:
        """f(z) (..., D), in the units of x, from ``parameters`` (..., num_outputs)."""
        return parameters[..., : self.data_dim]

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        scale = self.variance(parameters).sqrt()
        return dist.Normal(self.mean(parameters), scale).to_event(1)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Called by ``.to()`` and ``.double()``: a fixed c keeps no rounding of the dtype that it began in."""
        before = getattr(self, "fixed_variance", None)
        super()._apply(*args, **kwargs)
        if before is not None and torch.equal(before, torch.full_like(before, self._number)):
            self.fixed_variance.fill_(self._number)
        return self

    @torch.no_grad()
    def set_variance(self, variance: float) -> None:
        """Set c of the mode ``"optimal"``, not below the floor."""
        if self.mode != "optimal":
            raise ArgumentError(f"set_variance: expected variance='optimal', got {self.mode!r}.")
        self.fixed_variance.fill_(max(variance, self.minimum_variance))

    @torch.no_grad()
    def num_at_floor(self, parameters: Tensor) -> int:
        """The number of learned variances within a factor of two of their floor.

        In the mode ``"per-datum"`` the variances are read from the decoder's outputs ``parameters`` (..., num_outputs).
        """
        if self.mode == "fixed":
            return 0
        return int((self.variance(parameters) <= 2 * self.minimum_variance).sum())

    def floor_warning(self, parameters: Tensor) -> str | None:
        count = self.num_at_floor(parameters)
        return floor_message("variance", count, self.minimum_variance) if count else None

    def own_parameters(self) -> dict[str, Tensor]:
        # c belongs to the decoder in the mode "per-datum"
        return {} if self.mode == "per-datum" else {"c": self.variance(torch.empty(0))}

    def check_support(self, x: Tensor) -> None:
        check_finite(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, variance="learned")


def _mode(variance: float | str) -> str:
    if isinstance(variance, str):
        if variance not in VARIANCE_MODES:
            raise unknown_name("variance", variance, VARIANCE_MODES)
        return variance
    check_positive(variance, "variance")
    return "fixed"
