"""A model and a guide that were written by hand in Pyro, as the model and the guide of a VAE.

What the diagnostics need of a pair are three operations: log p(x, z), draws of q_x(z) with log q_x(z), and draws of
(z, x). Pyro's handlers take them from any two programs whose latent sites belong to a datum each.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

from probvae.errors import ArgumentError, ConfigError
from probvae.foundation.checks import check_finite, check_matrix
from probvae.foundation.seed import isolated_seed
from probvae.inference.guides import Guide
from probvae.inference.guides.families import as_normal
from probvae.inference.programs.program_runs import Program, Programs
from probvae.models import LatentModel, Likelihood, Prior
from probvae.models.priors import DistributionPrior

_ROWS_AT_ONCE = 2**16


def model_and_guide(model: Program, guide: Program, x: Tensor) -> tuple["ProgramModel", "ProgramGuide"]:
    """The two programs as a VAE's parts; ``x`` (N, ...) are data, on which they are tried.

    z is the latent sites' values side by side, in the model's order; a site with a bounded support is seen in
    unconstrained coordinates (Pyro's own, ``biject_to(support)``), which changes no evidence and no divergence.

    Raises :class:`~probvae.errors.ArgumentError` for programs that are not of this kind, with what is in the way.
    """
    if not isinstance(x, Tensor) or x.ndim < 2:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError(f"x: expected a tensor (N, ...), got {got}. One row is one datum: use x.unsqueeze(1).")
    check_matrix(x.flatten(1))
    check_finite(x.flatten(1))
    programs = Programs(model, guide, x)
    return ProgramModel(programs), ProgramGuide(programs)


class ProgramModel(LatentModel):
    """p(z) p(x|z) of a program. Its decoder hands z on to the likelihood, which runs the program there."""

    keeps_dtype = True

    def __init__(self, programs: Programs) -> None:
        super().__init__(_prior(programs), nn.Identity(), ProgramLikelihood(programs))
        self.programs, self.width = programs, _width(programs)

    @property
    def latent_names(self) -> list[str]:
        """The names of the d entries of z in the program."""
        return self.programs.layout.names

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(z.shape[:-1], x.shape[:-1])
        return _by_rows(self.programs.log_joint, shape, z, x).to(z)


class ProgramGuide(Guide):
    """q_x(z) of a program: torch's own distribution where it has one normal site, runs of the program otherwise."""

    def __init__(self, programs: Programs) -> None:
        super().__init__(programs.layout.latent_dim)
        self.programs, self.width = programs, _width(programs)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return _normal(self.programs, self.programs.guide, x) or LatentDistribution(
            self.programs, self.programs.guide, x
        )

    @classmethod
    def example(cls) -> Self:
        raise ConfigError(f"{cls.__name__}: made of a program, not by itself. Use program_vae(model, guide, x).")


class ProgramPrior(Prior):
    """p(z) of a program whose latent sites are several, or not normal."""

    template: Tensor

    def __init__(self, programs: Programs) -> None:
        super().__init__()
        self.programs, self.latent_dim = programs, programs.layout.latent_dim
        self.register_buffer("template", programs.template[0])

    def forward(self) -> dist.TorchDistribution:
        return LatentDistribution(self.programs, self.programs.model, self.template)

    @classmethod
    def example(cls) -> Self:
        raise ConfigError(f"{cls.__name__}: made of a program, not by itself. Use program_vae(model, guide, x).")


class ProgramLikelihood(Likelihood):
    """p(x|z) of a program; its parameters are z."""

    def __init__(self, programs: Programs) -> None:
        super().__init__(programs.template.shape[1])
        self.programs = programs
        self.measure = "probability" if programs.layout.is_discrete else "density"

    @property
    def num_outputs(self) -> int:
        return self.programs.layout.latent_dim

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return DataDistribution(self.programs, parameters)

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        self.programs.check_support(x)

    @classmethod
    def example(cls) -> Self:
        raise ConfigError(f"{cls.__name__}: made of a program, not by itself. Use program_vae(model, guide, x).")


class _Runs(dist.TorchDistribution):
    """A distribution whose draws and densities are runs of a program, one for each of ``rows`` (..., K)."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    # The draws of all rows are one dimension for the program, of so many entries in one run.
    joins_rows = _ROWS_AT_ONCE

    def __init__(self, programs: Programs, rows: Tensor, event_dim: int) -> None:
        self.programs, self.rows = programs, rows
        super().__init__(rows.shape[:-1], torch.Size((event_dim,)), validate_args=False)

    def _drawn(self, draw: Callable[[Tensor], Tensor], sample_shape: torch.Size) -> Tensor:
        return _by_rows(draw, torch.Size(sample_shape) + self.batch_shape, self.rows).to(self.rows)

    def _log_density(self, density: Callable[[Tensor, Tensor], Tensor], value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return _by_rows(density, shape, value, self.rows).to(value)

    def _expanded(self, batch_shape: Any) -> Tensor:
        return self.rows.expand(*batch_shape, self.rows.shape[-1])


class LatentDistribution(_Runs):
    """p(z), or q_x(z) at the rows of x (..., D), by the latent sites of a program; z and draws are (..., d)."""

    def __init__(self, programs: Programs, program: Program, x: Tensor) -> None:
        self.program = program
        super().__init__(programs, x, programs.layout.latent_dim)
        self.is_circular = programs.layout.is_circular

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """z of shape ``sample_shape`` + (..., d)."""
        return self._drawn(lambda x: self.programs.draw_z(self.program, x), sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), or log q_x(z), (...) at ``value`` (..., d)."""
        return self._log_density(lambda z, x: self.programs.log_latent(self.program, z, x), value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LatentDistribution":
        return LatentDistribution(self.programs, self.program, self._expanded(batch_shape))


class DataDistribution(_Runs):
    """p(x|z) at z (..., d), by the observed sites of a program; x and draws are (..., D)."""

    def __init__(self, programs: Programs, z: Tensor) -> None:
        super().__init__(programs, z, programs.template.shape[1])

    @property
    def mean(self) -> Tensor:
        """E[x|z] (..., D)."""
        return _by_rows(self.programs.mean_x, self.batch_shape, self.rows).to(self.rows)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """x of shape ``sample_shape`` + (..., D)."""
        return self._drawn(self.programs.draw_x, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x|z) (...) at ``value`` (..., D)."""
        return self._log_density(lambda x, z: self.programs.log_likelihood(z, x), value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DataDistribution":
        return DataDistribution(self.programs, self._expanded(batch_shape))


def _by_rows(function: Callable[..., Tensor], shape: torch.Size, *values: Tensor) -> Tensor:
    """``function`` of rows (R, K_i), for values that fit ``shape`` + (K_i,): its result has ``shape`` + (...)."""
    wide = [value.expand(*shape, value.shape[-1]) for value in values]
    if not shape:
        return function(*(value.unsqueeze(0) for value in wide))[0]
    # the first dimension is split, so that a row that serves many draws is copied for a few of them at a time
    size = max(1, _ROWS_AT_ONCE // max(1, shape[1:].numel()))
    parts = zip(*(value.split(size) for value in wide), strict=True)
    rows = torch.cat([function(*(value.flatten(0, -2) for value in part)) for part in parts])
    return rows.reshape(*shape, *rows.shape[1:])


def _prior(programs: Programs) -> Prior:
    normal = _normal(programs, programs.model, programs.template)
    parts = None if normal is None else as_normal(normal)
    if parts is None:
        return ProgramPrior(programs)
    loc, factor, full = parts
    return DistributionPrior(_normal_of(loc[0], factor[0], full))


@torch.no_grad()
def _normal(programs: Programs, program: Program, x: Tensor) -> dist.TorchDistribution | None:
    """The distribution of the only latent site at the rows ``x`` (N, D), if it is normal; None otherwise."""
    latents = programs.layout.latents
    if len(latents) > 1 or not latents[0].is_real or len(latents[0].shape) > 1 or x.ndim != 2:
        return None
    with isolated_seed(0, x.device):  # to read a distribution takes no random numbers of the caller
        site = programs.trace(program, x).nodes[latents[0].name]
    if site["mask"] is not None:
        return None
    fn: Any = site["fn"] if latents[0].shape else _one_dimensional(site["fn"])
    normal = as_normal(fn)
    return None if normal is None else _normal_of(normal[0].to(x), normal[1].to(x), normal[2])


def _one_dimensional(fn: Any) -> Any:
    """A normal of numbers (N,) as one of vectors (N, 1)."""
    return dist.Normal(fn.loc.unsqueeze(-1), fn.scale.unsqueeze(-1)).to_event(1) if type(fn) is dist.Normal else fn


def _normal_of(loc: Tensor, factor: Tensor, full: bool) -> dist.TorchDistribution:
    if full:
        return dist.MultivariateNormal(loc, scale_tril=factor)
    return dist.Normal(loc, factor.diagonal(dim1=-2, dim2=-1)).to_event(1)


def _width(programs: Programs) -> nn.Parameter:
    """A stand-in for the programs' own parameters (width,), from which memory is planned and the dtype of x is read."""
    return nn.Parameter(programs.template[0, :1].clone().expand(programs.width), requires_grad=False)
