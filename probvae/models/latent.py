"""The model p(z) p(x|z) as a Pyro program."""

import pyro
from pyro.poutine.runtime import am_i_wrapped, effectful
from torch import Tensor, nn
from torch.distributions import Distribution

from probvae.errors import ArgumentError, ShapeError, unknown_name
from probvae.foundation.checks import check_count, check_event
from probvae.models.covariates import ConditionedDecoder, ConditionedPrior, Covariates
from probvae.models.decoders import decoded
from probvae.models.likelihoods import Likelihood
from probvae.models.priors import DistributionPrior, Prior


def announce_parameters(module: nn.Module, prefix: str) -> None:
    """Send one message of type ``param`` for each trainable parameter of ``module``.

    `pyro.infer.SVI` and the loss classes learn from such messages what to train. A ``pyro.param`` statement
    would send them too, but it keeps the values in one store for the whole process, where two models of the
    same shape overwrite each other. Outside a handler this does nothing.
    """
    if not am_i_wrapped():
        return
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            _announce(parameter, name=f"{prefix}.{name}")


@effectful(type="param")
def _announce(parameter: nn.Parameter) -> Tensor:
    # An alias carries the attribute that SVI asks for, because the attribute on the parameter would break pickling
    alias = parameter.detach()
    alias.unconstrained = lambda: parameter  # type: ignore[attr-defined]  # Pyro's own, which no tensor has
    return alias


MISSING = {"refuse": "NaN is an error", "mask": "NaN is a missing entry, left out of log p(x|z)"}


class LatentModel(nn.Module):
    r"""p(z) p(x|z), one latent vector a datum: a Pyro model with the sites ``"z"`` and ``"x"``.

    .. math:: z_n \sim p(z), \qquad x_n \sim p(x \mid f(z_n)), \qquad n = 1 \dots N \text{ in the plate "data"}

    Parameters
    ----------
    prior
        p(z) over R^d: a :class:`Prior`, or any distribution of torch's or Pyro's with event_shape (d,).
    decoder
        f, any ``nn.Module`` from (..., d) to (..., ``likelihood.num_outputs``).
    likelihood
        p(x|z) over R^D.
    covariates
        Makes the model conditional, p(z|y) p(x|z, y): how y becomes C columns. The decoder then reads [z, y], so it
        is built with ``latent_dim`` d + C, and :meth:`given` makes the program at fixed y.
    missing
        ``"mask"``: NaN in x is a missing entry, which adds nothing to log p(x|z) (missing at random).
        ``"refuse"``: NaN is an error.

    Raises :class:`~probvae.errors.ShapeError` when the decoder's sizes, where it says them, do not fit.
    Source: Rocca (2019), "Understanding Variational Autoencoders".

    >>> import torch
    >>> from probvae.models import GaussianLikelihood, LinearDecoder, StandardNormalPrior
    >>> model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.25))
    >>> model(num_data=4).shape
    torch.Size([4, 3])
    """

    # True for a model that decides about the dtype of its numbers, so that .double() would not change it.
    keeps_dtype = False

    def __init__(
        self,
        prior: Prior | Distribution,
        decoder: nn.Module,
        likelihood: Likelihood,
        covariates: Covariates | None = None,
        missing: str = "refuse",
    ) -> None:
        super().__init__()
        prior = DistributionPrior(prior) if isinstance(prior, Distribution) else prior
        num_covariates = covariates.num_covariates if covariates else 0
        where = "prior.latent_dim" + " + covariates.num_covariates" * bool(covariates)
        _check_size(decoder, "latent_dim", prior.latent_dim + num_covariates, where)
        _check_size(decoder, "num_outputs", likelihood.num_outputs, "likelihood.num_outputs")
        if missing not in MISSING:
            raise unknown_name("missing", missing, MISSING)
        _check_covariates(prior, num_covariates)
        self.prior, self.decoder, self.likelihood = prior, decoder, likelihood
        self.covariates, self.missing = covariates, missing
        likelihood.missing = missing

    @property
    def latent_dim(self) -> int:
        """d."""
        return self.prior.latent_dim

    @property
    def data_dim(self) -> int:
        """D."""
        return self.likelihood.data_dim

    def given(self, y: Tensor | None = None, exposure: Tensor | None = None) -> "LatentModel":
        """p(z|y) p(x|z, y) as an ordinary model, with this model's weights.

        ``y`` is encoded (see :attr:`covariates`): (N, C), a row for each datum, or (1, C), one for all. ``exposure``
        (N or 1, 1) multiplies the rates of a likelihood of counts.
        """
        if exposure is not None:
            self.likelihood.check_exposure(exposure)
        return self.with_columns(y, exposure)

    def with_columns(self, y: Tensor | None, exposure: Tensor | None) -> "LatentModel":
        """:meth:`given` without a check of values: ``y`` (N or 1, C), ``exposure`` (N or 1, 1) or None."""
        prior, decoder, likelihood = self.prior, self.decoder, self.likelihood
        if self.covariates is not None:
            if y is None:
                self.check_conditioned()
            assert y is not None
            check_event(y, self.covariates.num_covariates, "y", "Encode it with model.covariates.encode(y).")
            decoder = ConditionedDecoder(decoder, y)
            prior = ConditionedPrior(prior, y) if hasattr(prior, "num_covariates") else prior
        if exposure is not None:
            likelihood = likelihood.with_exposure(exposure)
        return LatentModel(prior, decoder, likelihood, missing=self.missing)

    def check_conditioned(self) -> None:
        """Raise when the model is conditional, and its y is not fixed yet."""
        if self.covariates is not None:
            raise ArgumentError(
                "model: p(x|z, y) is conditional, and y was not given. Use vae.given(y) (or model.given(y)), and "
                "fit(vae, x, y=y)."
            )

    def decode(self, z: Tensor) -> Tensor:
        """f(z) (..., num_outputs) for z (..., d): the decoder, whichever leading dimensions it can take itself."""
        return decoded(self.decoder, z)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(z) + log p(x|z), (..., N) for z (..., N, d) and x (N, D), in nats."""
        self.check_conditioned()
        return self.prior().log_prob(z) + self.likelihood(self.decode(z)).log_prob(x)

    def forward(self, x: Tensor | None = None, num_data: int | None = None) -> Tensor:
        """Run the program: observe ``x`` (N, D), or draw x (num_data, D), one datum if ``num_data`` is None."""
        self.check_conditioned()
        if x is not None:
            check_event(x, self.data_dim, "x", "Use the data the model was built for.")
        num_data = _num_data(x, num_data)
        announce_parameters(self, "model")
        with pyro.plate("data", num_data):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decode(z)), obs=x)


def _num_data(x: Tensor | None, num_data: int | None) -> int:
    if num_data is not None:
        check_count(num_data, "num_data")
    if x is None:
        return 1 if num_data is None else num_data
    if x.ndim < 2:
        raise ShapeError(f"x: expected shape (N, D), got {tuple(x.shape)}. One row is one datum: use x.unsqueeze(0).")
    if num_data not in (None, x.shape[-2]):
        raise ArgumentError(f"num_data: expected the {x.shape[-2]} rows of x, got {num_data}. Leave it out.")
    return x.shape[-2]


def _check_covariates(prior: Prior, num_covariates: int) -> None:
    needed = getattr(prior, "num_covariates", None)
    if needed is not None and needed != num_covariates:
        raise ShapeError(
            f"prior: {type(prior).__name__} expects {needed} covariates, the model has {num_covariates}. "
            f"Build it with num_covariates={num_covariates}, and the model with covariates=..."
        )


def _check_size(decoder: nn.Module, attribute: str, expected: int, where: str) -> None:
    got = getattr(decoder, attribute, expected)
    if got != expected:
        raise ShapeError(
            f"decoder: expected {attribute}={expected} ({where}), got {got}. "
            f"Build the decoder with {attribute}={expected}."
        )
