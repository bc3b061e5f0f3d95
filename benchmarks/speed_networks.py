"""The workloads in PyTorch: data, networks, and the same model as a hand-written loss and as a Pyro program."""

import math
from itertools import pairwise

import pyro
import torch
from pyro import distributions as dist
from speed_worker import Workload
from torch import Tensor, nn
from torch.nn import functional

LOG_TWO_PI = math.log(2 * math.pi)


def make_data(workload: Workload) -> Tensor:
    """Numbers of the right kind: a step's time does not depend on what they are."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(workload.num_data, workload.data_dim, generator=generator)
    return (x < 0.3).float() if workload.likelihood == "bernoulli" else x


class Batches:
    """Contiguous slices of a copy of the data that is shuffled once an epoch; the rest of an epoch is left out."""

    def __init__(self, workload: Workload) -> None:
        self.x, self.size = make_data(workload), workload.batch_size
        self.shuffled, self.num, self.next = torch.empty_like(self.x), workload.num_batches, workload.num_batches

    def __call__(self) -> Tensor:
        if self.next == self.num:
            torch.index_select(self.x, 0, torch.randperm(len(self.x)), out=self.shuffled)
            self.next = 0
        self.next += 1
        return self.shuffled[(self.next - 1) * self.size : self.next * self.size]


def _layers(widths: list[int]) -> nn.Sequential:
    pairs = pairwise(widths)
    return nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())))


class Encoder(nn.Module):
    """Mean and standard deviation, or mean and Cholesky factor."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        widths, d = [workload.data_dim, *workload.hidden], workload.latent_dim
        self.full, self.d = workload.covariance == "full", d
        self.trunk, self.loc, self.log_scale = _layers(widths), nn.Linear(widths[-1], d), nn.Linear(widths[-1], d)
        if self.full:
            self.below = nn.Linear(widths[-1], d * (d - 1) // 2)
            row, column = torch.tril_indices(d, d, -1)
            self.register_buffer("place", row * d + column)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        scale = self.log_scale(features).exp()
        if not self.full:
            return self.loc(features), scale
        flat = features.new_zeros(len(x), self.d**2).index_copy(1, self.place, self.below(features))
        return self.loc(features), torch.diag_embed(scale) + flat.unflatten(1, (self.d, self.d))


class Decoder(nn.Module):
    """The likelihood's parameters, and log c where it has one."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        widths = [workload.latent_dim, *reversed(workload.hidden)]
        self.trunk, self.out = _layers(widths), nn.Linear(widths[-1], workload.data_dim)
        self.log_variance = nn.Parameter(torch.zeros(())) if workload.likelihood == "gaussian" else None

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.trunk(z))


class Loss(nn.Module):
    """Minus the ELBO of a batch, written out by hand: one draw for each datum, as in Trace_ELBO."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(workload), Decoder(workload)

    def forward(self, x: Tensor) -> Tensor:
        loc, factor = self.encoder(x)
        noise = torch.randn_like(loc)
        if factor.dim() == 2:
            z, log_det = loc + factor * noise, factor.log().sum()
        else:
            z = loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
            log_det = factor.diagonal(dim1=1, dim2=2).log().sum()
        kl = 0.5 * (z.square().sum() - noise.square().sum()) - log_det
        return kl - self.log_likelihood(x, self.decoder(z))

    def log_likelihood(self, x: Tensor, output: Tensor) -> Tensor:
        log_variance = self.decoder.log_variance
        if log_variance is None:
            return -functional.binary_cross_entropy_with_logits(output, x, reduction="sum")
        squares = (x - output).square().sum() * torch.exp(-log_variance)
        return -0.5 * (squares + x.numel() * (log_variance + LOG_TWO_PI))


class ImportanceWeightedLoss(nn.Module):
    """Minus the importance-weighted bound of W1's model with K draws, written out by hand."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.encoder, self.decoder, self.num_draws = Encoder(workload), Decoder(workload), workload.num_draws

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = self.encoder(x)
        noise = torch.randn(self.num_draws, *loc.shape)
        z = loc + scale * noise
        log_ratio = 0.5 * (noise.square() - z.square()).sum(-1) + scale.log().sum(-1)
        logits = self.decoder(z)
        target = x.expand_as(logits)
        log_likelihood = -functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        return -(torch.logsumexp(log_likelihood + log_ratio, 0) - math.log(self.num_draws)).sum()


class Model(nn.Module):
    """p(z) p(x|z) as a Pyro program."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.decoder, self.d = Decoder(workload), workload.latent_dim

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.d)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def likelihood(self, output: Tensor) -> dist.TorchDistribution:
        log_variance = self.decoder.log_variance
        if log_variance is None:
            return dist.Bernoulli(logits=output).to_event(1)
        return dist.Normal(output, (0.5 * log_variance).exp()).to_event(1)


class Guide(nn.Module):
    """q_x(z) as a Pyro program."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.encoder = Encoder(workload)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc, factor = self.encoder(x)
            diagonal = factor.dim() == 2
            normal = (
                dist.Normal(loc, factor).to_event(1) if diagonal else dist.MultivariateNormal(loc, scale_tril=factor)
            )
            pyro.sample("z", normal)


def matrix_products(workload: Workload) -> list[tuple[int, int, int]]:
    """(n, k, m) of each product (n x k) (k x m) of a step: forward, the weights' gradient, the input's gradient."""
    n, d = workload.batch_size, workload.latent_dim
    dependences = d * (d - 1) // 2 if workload.covariance == "full" else 0
    encoder = [workload.data_dim, *workload.hidden]
    decoder = [d, *reversed(workload.hidden), workload.data_dim]
    layers = [*pairwise(encoder), (encoder[-1], 2 * d + dependences)]
    layers += pairwise(decoder)
    products = []
    for number, (k, m) in enumerate(layers):
        products += [(n, k, m), (k, n, m)]
        if number > 0:  # nobody asks for the data's gradient
            products.append((n, m, k))
    return products
