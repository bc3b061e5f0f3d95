"""Whatever a program reads may change between steps: every step's loss is Pyro's own, or the change is refused."""

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import probvae
from probvae.errors import ArgumentError, PathWarning
from probvae.inference import DiagonalGuide, ELBOObjective, MLPEncoder, Objective, fit
from probvae.inference.compiled import Adam
from probvae.inference.compiled.watch import Watch
from probvae.models import Decoder, GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior

DIM, CHANGE, STEPS = 4, 4, 8
BETA, settings = 0.1, types.SimpleNamespace(beta=1.0)
Programs = tuple[Callable[..., Any], Callable[..., Any]]


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    yield
    pyro.clear_param_store()
    settings.beta = 1.0
    globals()["BETA"] = 0.1


class Parts:
    """What the programs read; they are made of it as methods, closures or modules."""

    shift = 0.0
    scale_of_x = 0.5

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.enc = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)).double()
        self.dec = nn.Linear(2, DIM).double()
        self.beta, self.skips, self.name, self.steps_seen = 0.5, False, "plain", 0
        self.offset = torch.zeros(DIM).double()
        self.tempered = torch.tensor(1.0).double()
        self.table = np.ones(2)
        self.options = {"power": 1.0, "weights": [1.0, 2.0]}
        self.prior = dist.Normal(torch.zeros(2).double(), 1.0)

    def scale(self) -> Any:
        weight = self.beta * settings.beta * self.options["power"] * self.options["weights"][0] * float(self.table[0])
        return weight * self.tempered * (1.0 if self.name == "plain" else 2.0)

    def model_of(self, x: Tensor) -> None:
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=self.scale()):
                z = pyro.sample("z", self.prior.expand([len(x), 2]).to_event(1))
            loc = self.dec(z) + self.offset + self.shift
            pyro.sample("x", dist.Normal(loc, self.scale_of_x).to_event(1), obs=x)

    def guide_of(self, x: Tensor) -> None:
        if any(p.requires_grad for p in self.enc.parameters()):
            pyro.module("enc", self.enc)
        loc, log_scale = self.enc(x).chunk(2, -1)
        if self.skips:
            loc = loc * 0
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.scale()):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def methods(parts: Parts) -> Programs:
    return parts.model_of, parts.guide_of


def closures(parts: Parts) -> Programs:
    return (lambda x: parts.model_of(x)), (lambda x: Parts.guide_of(parts, x))


class ModelOf(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts, self.dec = parts, parts.dec

    def forward(self, x: Tensor) -> None:
        self.parts.model_of(x)


class GuideOf(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts, self.enc = parts, parts.enc

    def forward(self, x: Tensor) -> None:
        self.parts.guide_of(x)


def modules(parts: Parts) -> Programs:
    return ModelOf(parts), GuideOf(parts)


def replace_class_attribute(parts: Parts) -> None:
    parts.scale_of_x = 2.0  # the class has it, and now the object


CHANGES: dict[str, Callable[[Parts], Any]] = {
    "nothing": lambda parts: None,
    "number": lambda parts: setattr(parts, "beta", 1.7),
    "flag": lambda parts: setattr(parts, "skips", True),
    "text": lambda parts: setattr(parts, "name", "other"),
    "attribute of the class": replace_class_attribute,
    "number in a namespace": lambda parts: setattr(settings, "beta", 0.3),
    "number in a dictionary": lambda parts: parts.options.update(power=0.2),
    "number in a list": lambda parts: parts.options["weights"].__setitem__(0, 3.0),
    "number in an array": lambda parts: parts.table.__setitem__(0, 0.25),
    "tensor replaced": lambda parts: setattr(parts, "offset", torch.ones(DIM).double()),
    "tensor in place": lambda parts: parts.offset.add_(1.0),
    "tensor behind torch's back": lambda parts: parts.tempered.data.fill_(0.1),
    "distribution": lambda parts: setattr(parts, "prior", dist.Normal(torch.ones(2).double(), 2.0)),
    "eval": lambda parts: parts.enc.eval(),
    "eval of one layer": lambda parts: parts.enc[1].eval(),
    "dropout": lambda parts: setattr(parts.enc[2], "p", 0.9),
    "momentum": lambda parts: setattr(parts.enc[1], "momentum", 0.9),
    "buffer in place": lambda parts: (parts.enc.eval(), parts.enc[1].running_mean.add_(1.0)),
    "buffer replaced": lambda parts: (
        parts.enc.eval(),
        setattr(parts.enc[1], "running_var", torch.full((8,), 4.0).double()),
    ),
    "frozen encoder": lambda parts: parts.enc.requires_grad_(False),
    "frozen layer": lambda parts: parts.enc[0].requires_grad_(False),
    "parameter in place": lambda parts: parts.dec.weight.data.mul_(2.0),
    "hook": lambda parts: parts.enc[0].register_forward_hook(lambda module, x, out: 2 * out),
}


def losses(programs: Callable[[Parts], Programs], change: Callable[[Parts], Any], compiled: bool | str) -> list[float]:
    pyro.clear_param_store()
    settings.beta = 1.0
    parts, x = Parts(), torch.randn(32, DIM, generator=torch.Generator().manual_seed(1)).double()
    model, guide = programs(parts)
    if compiled:
        step: Any = probvae.CompiledStep(model, guide, Trace_ELBO(), [x], lambda p: Adam(p, 0.01), compile=compiled)
        assert step.path == ("traced" if compiled == "graph" else "compiled"), step.reason
    else:
        step = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step
    found = []
    for number in range(STEPS):
        if number == CHANGE:
            change(parts)
        torch.manual_seed(number)
        found.append(float(step(x)))
    if compiled == "graph":
        assert step.path == "traced", step.reason
    return found


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
@pytest.mark.parametrize("programs", [methods, closures, modules], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CHANGES)
def test_every_loss_is_pyros(name: str, programs: Callable[[Parts], Programs]) -> None:
    expected = losses(programs, CHANGES[name], False)
    assert losses(programs, CHANGES[name], "graph") == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
# The example has a gradient of zero, which compiled code rounds to 2e-14, and which the check does not trust.
@pytest.mark.xfail(strict=False, reason="the compiled step of this example is not trusted, and the traced one is taken")
@pytest.mark.parametrize("name", ["number", "eval", "frozen encoder", "tensor replaced", "tensor in place"])
def test_every_loss_of_compiled_code_is_pyros(name: str) -> None:
    expected = losses(methods, CHANGES[name], False)
    assert losses(methods, CHANGES[name], True) == pytest.approx(expected, rel=1e-9)


def plain_programs(beta: Callable[[], Any]) -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=beta()):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.5).double())
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=beta()):
            pyro.sample("z", dist.Normal(x, scale.abs()))

    return model, guide


def check_annealed(beta: Callable[[], Any], change: Callable[[int], None], steps: int = 8) -> Any:
    """Every loss is that of the programs at the time."""
    x, found = torch.linspace(-1, 1, 5).double(), {}
    for compile in (False, "graph"):
        pyro.clear_param_store()
        change(0)
        model, guide = plain_programs(beta)
        step = probvae.CompiledStep(model, guide, Trace_ELBO(), [x], lambda p: Adam(p, 0.01), compile=compile)
        found[compile] = []
        for number in range(steps):
            change(number)
            torch.manual_seed(number)
            found[compile].append(float(step(x)))
    assert found["graph"] == pytest.approx(found[False], rel=1e-9)
    assert len(set(found[False])) == steps
    return step


def test_a_global_and_a_cell() -> None:
    beta = 0.0

    def anneal(number: int) -> None:
        nonlocal beta
        beta = 1.0 if number < 4 else 0.3

    def anneal_global(number: int) -> None:
        globals()["BETA"] = 1.0 if number < 4 else 0.3

    assert check_annealed(lambda: beta, anneal).path == "traced"
    assert check_annealed(lambda: BETA, anneal_global).path == "traced"


def test_a_number_that_changes_at_every_step_goes_through_the_handlers_and_is_said() -> None:
    state = types.SimpleNamespace(beta=0.0)
    with pytest.warns(PathWarning, match=r"changed between steps again and again: .*beta was 0\.\d+, and is 0\.\d+"):
        step = check_annealed(lambda: state.beta, lambda number: setattr(state, "beta", 0.1 + number / 10), steps=9)
    assert step.path == "pyro"


def test_a_pause_ends_where_nothing_changes() -> None:
    state = types.SimpleNamespace(beta=0.0)
    with pytest.warns(PathWarning, match="again and again"):
        step = check_annealed(lambda: state.beta, lambda number: setattr(state, "beta", 0.1 + min(number, 9) / 10), 150)
    assert step.path == "traced"


def test_a_tensor_that_is_written_to_is_read_at_every_step() -> None:
    beta = torch.tensor(0.0).double()
    watched = check_annealed(lambda: beta, lambda number: beta.fill_(0.1 + number / 10))
    assert watched.path == "traced"


def test_a_tensor_whose_number_decides_is_a_constant_until_it_is_written_to() -> None:
    beta = torch.tensor(0.0).double()

    def change(number: int) -> None:
        if number in (0, 4):
            beta.fill_(0.2 if number < 4 else 0.9)

    step = check_annealed(lambda: beta.item(), change)
    assert step.path == "traced"


def test_a_program_that_counts_its_runs_goes_through_the_handlers() -> None:
    state = types.SimpleNamespace(runs=0)

    def beta() -> float:
        state.runs += 1
        return 1 / state.runs

    model, guide = plain_programs(beta)
    with pytest.warns(PathWarning, match=r"the program changes what it reads: .*runs was \d+, and is \d+"):
        assert probvae.CompiledStep(model, guide, Trace_ELBO(), [torch.ones(3).double()]).path == "pyro"
    assert state.runs == 0


def test_what_no_code_reads_is_no_change() -> None:
    """A trainer's counters and histories, and a number that is set anew to what it was."""
    parts, x = Parts(), torch.randn(32, DIM).double()
    step = probvae.CompiledStep(parts.model_of, parts.guide_of, Trace_ELBO(), [x])
    first = step._following.step
    for number in range(3):
        parts.steps_seen, parts.history = number, [number]  # type: ignore[attr-defined]
        parts.beta = float("0.5")
        step(x)
    assert step._following.step is first


def test_unfrozen_parameters_join_the_others() -> None:
    parts, x = Parts(), torch.randn(32, DIM).double()
    parts.enc.requires_grad_(False)
    step = probvae.CompiledStep(parts.model_of, parts.guide_of, Trace_ELBO(), [x])
    before = parts.enc[0].weight.detach().clone()
    step(x)
    assert torch.equal(parts.enc[0].weight, before)
    parts.enc.requires_grad_(True)
    step(x)
    assert step.path == "traced"
    assert not torch.equal(parts.enc[0].weight, before)


@pytest.mark.parametrize("programs", [methods, closures], ids=lambda f: f.__name__)
def test_a_replaced_parameter_is_refused(programs: Callable[[Parts], Programs]) -> None:
    for replace in (
        lambda parts: setattr(parts, "dec", nn.Linear(2, DIM).double()),
        lambda parts: setattr(parts.dec, "weight", nn.Parameter(torch.ones(DIM, 2).double())),
        lambda parts: setattr(parts.dec.weight, "data", torch.ones(DIM, 2).double()),
    ):
        pyro.clear_param_store()
        parts, x = Parts(), torch.randn(32, DIM).double()
        step = probvae.CompiledStep(*programs(parts), Trace_ELBO(), [x])
        replace(parts)
        with pytest.raises(ArgumentError, match=r"^parameters: expected those that the step was made for, got another"):
            step(x)


@pytest.mark.parametrize("family", ["objective", "decoder"])
def test_components_stay_as_they_were_recorded(family: str) -> None:
    """Steps of this package's own parts find no change, and are recorded once."""
    for name in Objective.registry if family == "objective" else Decoder.registry:
        torch.manual_seed(0)
        decoder = Decoder.registry[name].example() if family == "decoder" else MLPDecoder(2, DIM, (3,), dropout=0.2)
        out = decoder(torch.randn(6, 2)).flatten(1).shape[1] if family == "decoder" else DIM
        model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(out))
        objective = Objective.registry[name]() if family == "objective" else ELBOObjective()
        x = torch.randn(6, out)
        try:
            step = probvae.CompiledStep(model, DiagonalGuide(MLPEncoder(out, (3,)), 2), objective, [x])
        except (RuntimeError, ValueError):
            continue
        first = step._following.step
        for _ in range(3):
            step(x)
        assert step._following.step is first
        assert step.path == "traced"


class WarmingDecoder(nn.Module):
    """Grows more certain at every training step, by a number of its own."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.inner, self.counts, self.runs, self.gain = nn.Linear(2, DIM), counts, 0, 1.0

    def forward(self, z: Tensor) -> Tensor:
        if self.counts and self.training:
            self.runs += 1
        out: Tensor = self.inner(z) * (self.gain + self.runs)
        return out


@pytest.mark.parametrize("way", ["counts", "nothing"])
def test_a_fit_follows_its_modules(way: str) -> None:
    """A decoder that counts its steps, or one that somebody changes, has the fit of Pyro's handlers."""
    fits = {}
    for compile in (False, "auto"):
        torch.manual_seed(0)
        decoder = WarmingDecoder(way == "counts")
        vae = probvae.VAE(
            LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(DIM)),
            DiagonalGuide(MLPEncoder(DIM, (3,)), 2),
        ).double()
        x = torch.randn(40, DIM).double()
        result = fit(vae, x, epochs=30, batch_size=10, compile=compile, progress=False)
        fits[compile] = (result.path, result.path_reason, [record["elbo"] for record in result.history])
    assert fits["auto"][0] == ("pyro" if way == "counts" else "traced")
    if way == "counts":
        assert "changes what it reads: LatentModel.decoder" in fits["auto"][1]
    assert fits["auto"][2] == pytest.approx(fits[False][2], rel=1e-9)


def test_names_in_a_change() -> None:
    parts = Parts()
    watch = Watch([parts.model_of, parts.guide_of])
    parts.enc.eval()
    assert watch.change() == "Parts.enc.0.training was True, and is False"
    parts.enc[0].requires_grad_(False)
    assert watch.change() == "Parts.enc.0.weight was a trained tensor, and is a constant tensor"
    assert watch.change() is None
