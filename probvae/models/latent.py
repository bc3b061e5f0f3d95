"""The model p(z) p(x|z) as a Pyro program."""

import pyro
from torch import Tensor, nn

from probvae._shapes import check_count, check_event
from probvae.errors import ArgumentError, ShapeError
from probvae.models._announce import announce_parameters
from probvae.models.likelihoods import Likelihood
from probvae.models.priors import Prior


class LatentModel(nn.Module):
    r"""p(z) p(x|z), one latent vector a datum: a Pyro model with the sites ``"z"`` and ``"x"``.

    .. math:: z_n \sim p(z), \qquad x_n \sim p(x \mid f(z_n)), \qquad n = 1 \dots N \text{ in the plate "data"}

    Parameters
    ----------
    prior
        p(z) over R^d.
    decoder
        f, any ``nn.Module`` from (..., d) to (..., ``likelihood.num_outputs``).
    likelihood
        p(x|z) over R^D.

    Raises :class:`~probvae.errors.ShapeError` when the decoder's sizes, where it says them, do not fit.
    Source: Rocca (2019), "Understanding Variational Autoencoders".

    >>> import torch
    >>> from probvae.models import GaussianLikelihood, LinearDecoder, StandardNormalPrior
    >>> model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.25))
    >>> model(num_data=4).shape
    torch.Size([4, 3])
    """

    def __init__(self, prior: Prior, decoder: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        _check_size(decoder, "latent_dim", prior.latent_dim, "prior.latent_dim")
        _check_size(decoder, "num_outputs", likelihood.num_outputs, "likelihood.num_outputs")
        self.prior, self.decoder, self.likelihood = prior, decoder, likelihood

    @property
    def latent_dim(self) -> int:
        """d."""
        return self.prior.latent_dim

    @property
    def data_dim(self) -> int:
        """D."""
        return self.likelihood.data_dim

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(z) + log p(x|z), (..., N) for z (..., N, d) and x (N, D), in nats."""
        return self.prior().log_prob(z) + self.likelihood(self.decoder(z)).log_prob(x)

    def forward(self, x: Tensor | None = None, num_data: int | None = None) -> Tensor:
        """Run the program: observe ``x`` (N, D), or draw ``num_data`` data (one, if neither is given)."""
        if x is not None:
            check_event(x, self.data_dim, "x", "Use the data the model was built for.")
        num_data = _num_data(x, num_data)
        announce_parameters(self, "model")
        with pyro.plate("data", num_data):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


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


def _check_size(decoder: nn.Module, attribute: str, expected: int, where: str) -> None:
    got = getattr(decoder, attribute, expected)
    if got != expected:
        raise ShapeError(
            f"decoder: expected {attribute}={expected} ({where}), got {got}. "
            f"Build the decoder with {attribute}={expected}."
        )
