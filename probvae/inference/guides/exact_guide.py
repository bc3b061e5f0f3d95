"""The guide that is no approximation."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.inference.guides.base import Guide
from probvae.inference.linear.closed_form_model import linear_gaussian
from probvae.inference.linear.exact import exact_posterior
from probvae.models import LatentModel, LinearGaussianModel


class ExactGuide(Guide, name="exact"):
    r"""The exact posterior of a linear-Gaussian model, q_x(z) = p(z|x).

    .. math:: \log p(x|z) + \log p(z) - \log q_x(z) = \log p(x) \quad \text{at every } z

    so that one draw gives the evidence without error. It has no parameters: it is a function of the model's, and
    follows them when the model is trained, moved or converted. A copy or a saved file of the VAE takes it along.

    Parameters: ``model``, the very model that the VAE has; ``detach=True`` cuts the gradient through q_x. With the
    default the gradient of a one-draw ELBO is that of log p(x), without noise, where the posterior is one Gaussian; a
    mixture's draws have no reparameterisation, and Pyro takes the score-function gradient, which is noisy.
    With ``detach=True`` the model's gradient is E_q[d log p(x, z)], that of the EM algorithm, by Monte Carlo.
    Raises :class:`~probvae.errors.NotLinearGaussianError` for a model without closed form.
    Source: Tipping and Bishop (1999), section 3.2; Roeder, Wu and Duvenaud (2017), arXiv:1703.09194 (no variance).

    >>> import torch
    >>> ExactGuide(LinearGaussianModel(torch.ones(3, 1), variance=0.5)).distribution(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, model: LatentModel, detach: bool = False) -> None:
        super().__init__(model.latent_dim)
        if model.covariates is None:
            linear_gaussian(model)  # raises where there is no closed form
        self.detach = detach
        # nn.Module does not look into a tuple: the parameters are the model's, and are to be listed once
        self._model = (model,)

    @property
    def model(self) -> LatentModel:
        """The model whose posterior this guide is."""
        return self._model[0]

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        if not self.detach:
            return exact_posterior(self.model, x)
        with torch.no_grad():
            return exact_posterior(self.model, x)

    @classmethod
    def example(cls) -> Self:
        weight = torch.tensor([[1.0, 0.5], [0.3, 1.2], [-0.7, 0.4]])
        return cls(LinearGaussianModel(weight, variance=0.25))
