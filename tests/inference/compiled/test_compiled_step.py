"""CompiledStep for programs of any kind, against pyro.infer.SVI and against Pyro's own losses."""

from collections.abc import Iterator

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae.errors import PathWarning
from probvae.inference import Objective
from probvae.inference.compiled import Adam

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    yield
    pyro.clear_param_store()


def regression(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3, dtype=x.dtype), 2.0).to_event(1))
    noise = pyro.param("noise", torch.tensor(0.5, dtype=x.dtype), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, noise), obs=y)


def factored(x: Tensor, y: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3, dtype=x.dtype))
    scale = pyro.param("scale", torch.full((3,), 0.3, dtype=x.dtype), constraint=dist.constraints.positive)
    pyro.sample("weight", dist.Normal(loc, scale).to_event(1))


def data(num: int = 12) -> list[Tensor]:
    x = torch.randn(num, 3, dtype=torch.float64)
    return [x, x.sum(1)]


def store() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in pyro.get_param_store().items()}


@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceMeanField_ELBO()], ids=lambda loss: type(loss).__name__)
def test_functions_and_the_parameter_store_are_pyros_svi(loss: pyro.infer.ELBO) -> None:
    batches = [data() for _ in range(6)]
    torch.manual_seed(2)
    svi = SVI(regression, factored, pyro.optim.Adam({"lr": 0.05}), loss)
    losses = [svi.step(*batch) for batch in batches]
    expected = store()
    pyro.clear_param_store()
    step = probvae.CompiledStep(regression, factored, loss, batches[0], lambda p: Adam(p, 0.05))
    assert step.path == "traced"
    torch.manual_seed(2)
    assert [float(step(*batch)) for batch in batches] == pytest.approx(losses, rel=1e-10)
    for name, value in store().items():
        assert_close(value, expected[name], **EXACT)


def test_pyro_module_in_a_function() -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(3, 3).double()

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.module("encoder", encoder)
        pyro.sample("weight", dist.Normal(encoder(x).mean(0), 0.2).to_event(1))

    step = probvae.CompiledStep(regression, guide, Trace_ELBO(), data(), lambda p: Adam(p, 0.05))
    before = encoder.weight.detach().clone()
    assert step.path == "traced"
    first, last = step(*data()), [step(*data()) for _ in range(100)][-1]
    assert not torch.equal(before, encoder.weight)
    assert last < first


@pytest.mark.parametrize("name", ["elbo", "iwae"])
def test_modules_and_our_objectives(name: str) -> None:
    """A batch of another size goes through the handlers, with the same moments."""
    pairs = []
    for compile in (False, "graph"):
        torch.manual_seed(0)
        vae = probvae.VAE.example().double()
        step = probvae.CompiledStep(vae.model, vae.guide, name, [torch.randn(8, 3).double()], compile=compile)
        torch.manual_seed(1)
        reports = [step(torch.randn(rows, 3).double()) for rows in (8, 8, 3, 8)]
        pairs.append((step.path, reports, list(vae.parameters())))
    assert [path for path, _, _ in pairs] == ["pyro", "traced"]
    for one, two in zip(pairs[0][1], pairs[1][1], strict=True):
        assert_close(tuple(two), tuple(one), **EXACT)
    for one, two in zip(pairs[0][2], pairs[1][2], strict=True):
        assert_close(two, one, **EXACT)


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    vae, x = probvae.VAE.example(), torch.randn(8, 3)
    step = probvae.CompiledStep(vae.model, vae.guide, "elbo", [x])
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    assert not step(torch.full((8, 3), torch.nan)).loss.isfinite()
    assert all(torch.equal(one, two) for one, two in zip(before, vae.parameters(), strict=True))
    assert all((moment == 0).all() for name, moment in step.state_dict().items())


def test_a_state_can_be_saved_and_taken_up() -> None:
    torch.manual_seed(0)
    x = [torch.randn(8, 3) for _ in range(4)]

    def made(weights: dict[str, Tensor] | None = None) -> tuple[probvae.VAE, probvae.CompiledStep]:
        vae = probvae.VAE.example()
        vae.load_state_dict(weights or start)
        return vae, probvae.CompiledStep(vae.model, vae.guide, "elbo", x[:1])

    start = probvae.VAE.example().state_dict()
    whole, step = made()
    torch.manual_seed(1)
    for batch in x:
        step(batch)
    half, first = made()
    torch.manual_seed(1)
    for batch in x[:2]:
        first(batch)
    state = torch.get_rng_state()
    resumed, second = made(half.state_dict())
    second.load_state_dict(first.state_dict())
    torch.set_rng_state(state)
    for batch in x[2:]:
        second(batch)
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_structure_that_depends_on_data_takes_the_handlers() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        regression(x if x.sum() > 0 else -x, y)

    with pytest.warns(PathWarning, match="reads the value of a tensor"):
        step = probvae.CompiledStep(model, factored, Trace_ELBO(), data())
    assert step.path == "pyro"
    assert torch.isfinite(torch.as_tensor(step(*data())))


@pytest.mark.parametrize("name", sorted(Objective.registry))
def test_every_objective(name: str) -> None:
    vae, x = probvae.VAE.example(), torch.randn(8, 3)
    step = probvae.CompiledStep(vae.model, vae.guide, name, [x], gradient_clip=1.0)
    assert (step.path, len(step(x))) == ("traced", 3)


@pytest.mark.slow
def test_a_batch_that_is_laid_out_otherwise() -> None:
    """Compiled code reads the memory as that of the example lies."""
    x = torch.randn(8, 3)
    found = []
    for compile in (True, "graph"):
        torch.manual_seed(0)
        vae = probvae.VAE.example()
        step = probvae.CompiledStep(vae.model, vae.guide, "elbo", [torch.randn(8, 3)], compile=compile)
        torch.manual_seed(1)
        found.append((step.path, [float(step(batch).loss) for batch in (x, x.T.contiguous().T, x[:, :1].expand(8, 3))]))
    assert [path for path, _ in found] == ["compiled", "traced"]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
