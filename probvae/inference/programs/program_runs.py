"""Runs of a model and a guide that were written by hand, for any rows of data, and the trial that they must pass."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from probvae.errors import ArgumentError, SupportError
from probvae.foundation.pyro_internals import plates_of_its_own
from probvae.foundation.seed import isolated_seed
from probvae.inference.programs.program_sites import Layout, latents_of, layout_of

Program = Callable[..., Any]
T = TypeVar("T")

_NUM_TRIED = 64
_ROUNDINGS = 1000  # two ways to one log density may differ by so many units of the last digit


class Programs:
    """The two programs, run for any rows of x and any z, unseen by handlers outside.

    ``x`` (N, ...) are the data that the programs are tried on; their type is that of every run. The parameter store is
    read as it was when this was made; what the programs add to it stays here.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor) -> None:
        self.model, self.guide = model, guide
        self.row_shape, self.dtype = x.shape[1:], x.dtype
        self._store = pyro.get_param_store().get_state()
        tried = x[:_NUM_TRIED].flatten(1)
        self.template = tried[:1].clone()
        with torch.no_grad(), isolated_seed(0, x.device):
            self._read(torch.cat([tried, tried[:1]]) if len(tried) == 1 else tried)

    def __deepcopy__(self, memo: Any) -> Self:
        # a function is not copied with its weights: a copy of the model runs the same programs, in their own precision
        return self

    def draw_z(self, program: Program, x: Tensor) -> Tensor:
        """z (R, d) from the program's latent sites, for rows ``x`` (R, D)."""
        with torch.no_grad():
            return self.layout.z_of(self.trace(program, x))

    def draw_x(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """x (R, D) ~ p(x|z) at ``z`` (R, d); ``x`` (R, D) is what the model is called with, to be ignored."""
        with torch.no_grad():
            return self.layout.x_of(self.trace(poutine.uncondition(self.model), self._rows(x, z), z))

    def log_latent(self, program: Program, z: Tensor, x: Tensor | None = None) -> Tensor:
        """log p(z) or log q_x(z) (R,), whichever the program says, at ``z`` (R, d)."""
        return self.layout.log_latent(self.trace(program, self._rows(x, z), z)) + self.layout.log_volume(z)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) (R,)."""
        return self.layout.log_likelihood(self.trace(self.model, x, z))

    def log_joint(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x, z) (R,), in one run."""
        trace = self.trace(self.model, x, z)
        return self.layout.log_latent(trace) + self.layout.log_likelihood(trace) + self.layout.log_volume(z)

    def mean_x(self, z: Tensor) -> Tensor:
        """E[x|z] (R, D)."""
        trace = self.trace(self.model, self._rows(None, z), z)
        sites = [trace.nodes[name] for name in self.layout.observed]
        return torch.cat([_mean(site).reshape(len(z), -1) for site in sites], dim=1)

    def check_support(self, x: Tensor) -> None:
        """Raise :class:`~probvae.errors.SupportError` where the rows ``x`` (R, D) are impossible."""
        trace = self.trace(self.model, x, self.typical_z.expand(len(x), -1))
        for name in self.layout.observed:
            fn: Any = trace.nodes[name]["fn"]
            if not fn.support.check(trace.nodes[name]["value"]).all():
                raise SupportError(
                    f"x: some values lie outside the support of site {name!r} ({fn.support}). Give data that the model "
                    "can have made."
                )

    def trace(self, program: Program, x: Tensor, z: Tensor | None = None) -> Trace:
        """One run for the rows ``x`` (R, D), at ``z`` (R, d) unless it is None."""
        if z is not None:
            program = poutine.condition(program, data=self.layout.values(z.to(self.dtype)))
        rows = x.to(self.dtype).reshape(-1, *self.row_shape)
        name = "guide" if program is self.guide else "model"
        with plates_of_its_own(), pyro.get_param_store().scope(self._store), poutine.block():
            return _tried(name, rows, poutine.trace(program).get_trace, rows)

    def _rows(self, x: Tensor | None, z: Tensor) -> Tensor:
        return self.template.expand(len(z), -1) if x is None else x

    def _read(self, x: Tensor) -> None:
        """Find the sites, and try every kind of run."""
        for rows in (x, x[:1]):  # one row last: the support of its sites fits any number of rows
            guide = _tried("guide", rows, self.trace, self.guide, rows)
            replayed = poutine.replay(self.model, trace=latents_of(guide))
            model = _tried("model", rows, self.trace, replayed, rows)
            self.layout = _tried("model", rows, layout_of, model, guide, len(rows))
        self.width = _widest([model, guide], [self.model, self.guide])
        z = _tried("guide", x, self.draw_z, self.guide, x)
        _check_observed(self.layout, _tried("model", x, self.trace, self.model, x, z), x)
        self._check_rows(z, x)
        self._check_roles(z, x)
        self.typical_z = z[:1]

    def _check_rows(self, z: Tensor, x: Tensor) -> None:
        """Raise unless the density of a row is the same among other rows."""
        some = torch.arange(len(x) - 1, 0, -1, device=x.device)

        def log_q(z: Tensor, x: Tensor) -> Tensor:
            return self.log_latent(self.guide, z, x)

        for name, density in (("model", self.log_joint), ("guide", log_q)):
            alone = _tried(name, x[some], density, z[some], x[some])
            if not _close(alone, density(z, x)[some]):
                raise ArgumentError(
                    f"{name}: expected the density of a datum to be the same at every run and among other data. Put "
                    "its networks into evaluation mode (.eval()), and draw random numbers at sites only."
                )

    def _check_roles(self, z: Tensor, x: Tensor) -> None:
        """Raise where the model reads x otherwise than by observing it."""
        other = x.roll(1, 0)
        if not _close(self.log_latent(self.model, z, x), self.log_latent(self.model, z, other)):
            raise ArgumentError("model: expected one p(z) for all data, got one that depends on x. Leave x out of it.")
        drawn = []
        for rows in (x, other):
            with isolated_seed(0, x.device):
                drawn.append(_tried("model", rows, self.draw_x, z, rows))
        if not torch.equal(*drawn):
            raise ArgumentError(
                "model: expected p(x|z) to depend on z only, got one that reads x: no x can be drawn from it. Let the "
                "decoder read z."
            )


def _mean(site: Any) -> Tensor:
    return site["fn"].mean.expand_as(site["value"])


def _check_observed(layout: Layout, trace: Trace, x: Tensor) -> None:
    observed = layout.x_of(trace)
    if observed.shape != x.shape or not torch.equal(observed.to(x.dtype), x):
        raise ArgumentError(
            f"model: expected the sites that observe ({', '.join(layout.observed)}) to have the columns of x, from "
            "left to right, as their values, got others. Observe x as it is: transform the data before they are given."
        )


def _tried(name: str, x: Tensor, run: Callable[..., T], *arguments: Any) -> T:
    """The result of a program; the user reads whatever it raises, in one line."""
    try:
        return run(*arguments)
    except ArgumentError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArgumentError(
            f"{name}: it failed for x of shape {tuple(x.shape)} ({reason}). Give data of the width that it was written "
            f"for; it is run for one row as for many, so plates need the size x.shape[0], and weights the type of x "
            f"({x.dtype})."
        ) from error


def _widest(traces: list[Trace], programs: list[Program]) -> int:
    """The largest dimension of any parameter that the programs are seen to have."""
    owners = [getattr(program, "__self__", program) for program in programs]
    parameters: list[Any] = [p for owner in owners if isinstance(owner, nn.Module) for p in owner.parameters()]
    parameters += [site["value"] for trace in traces for site in trace.nodes.values() if site["type"] == "param"]
    return max((size for parameter in parameters for size in parameter.shape), default=1)


def _close(one: Tensor, two: Tensor) -> bool:
    size = 1 + one.abs().max()
    return bool(((one - two).abs() <= _ROUNDINGS * torch.finfo(one.dtype).eps * size).all())
