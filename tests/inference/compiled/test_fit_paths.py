"""The fit on the traced graph against the fit through Pyro's handlers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, NonFiniteLossError, PathWarning
from probvae.inference import DiagonalGuide, ExactGuide, FreeGuide, MaskedEncoder, MLPEncoder, fit
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    LinearDecoder,
    MLPDecoder,
    NegativeBinomialLikelihood,
    StandardNormalPrior,
)

DIM = 4
Made = tuple[probvae.VAE, torch.Tensor, dict[str, object]]


def gaussian(variance: str = "learned", missing: str = "refuse") -> Made:
    model = LatentModel(
        StandardNormalPrior(2), MLPDecoder(2, DIM, (6,)), GaussianLikelihood(DIM, variance), None, missing
    )
    encoder = MLPEncoder(DIM, (5,)) if missing == "refuse" else MaskedEncoder(MLPEncoder(2 * DIM, (5,)), DIM)
    x = torch.randn(50, DIM)
    if missing == "mask":
        x[torch.rand(50, DIM) < 0.2] = torch.nan
    return probvae.VAE(model, DiagonalGuide(encoder, 2)), x, {}


def grey() -> Made:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), BernoulliLikelihood(DIM))
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, (5,)), 2)), torch.rand(50, DIM), {"binarization": "fresh"}


def conditional_counts() -> Made:
    covariates, y = LabelCovariates(["a", "b", "c"]), np.array(list("abcab") * 10)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(5, DIM, (6,)), NegativeBinomialLikelihood(DIM), covariates)
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM + 3, (5,)), 2))
    return vae, torch.poisson(torch.full((50, DIM), 4.0)), {"y": y, "exposure": torch.rand(50) + 0.5}


CASES: dict[str, Callable[[], Made]] = {
    "gaussian": gaussian,
    "optimal-variance": lambda: gaussian("optimal"),
    "missing": lambda: gaussian(missing="mask"),
    "fresh": grey,
    "conditional": conditional_counts,
}


def fitted(case: str, **options: object) -> tuple[probvae.VAE, probvae.FitResult]:
    torch.manual_seed(4)
    vae, x, given = CASES[case]()
    x, given = x.double(), {**given, "epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    return (vae := vae.double()), fit(vae, x, **{**given, **options})


def check_same(case: str, path: str = "traced", compile: str | bool = "graph", **options: object) -> None:
    """50 = 3 * 16 + 2: the last, smaller batch of each epoch is among the steps."""
    (plain, by_handlers), (traced, by_graph) = (
        fitted(case, compile=False, **options),
        fitted(case, compile=compile, **options),
    )
    assert (by_handlers.path, by_graph.path) == ("pyro", path), by_graph.path_reason
    for one, two in zip(plain.parameters(), traced.parameters(), strict=True):
        assert_close(two, one, rtol=1e-9, atol=1e-10)
    for one, two in zip(by_handlers.history, by_graph.history, strict=True):
        for name in ("objective", "elbo", "kl", "variance"):
            assert two[name] == (None if one[name] is None else pytest.approx(one[name], rel=1e-9))


@pytest.mark.parametrize("case", CASES)
def test_same_fit_on_both_paths(case: str) -> None:
    check_same(case)


@pytest.mark.parametrize("case", ["gaussian", "conditional"])
@pytest.mark.parametrize(
    "options",
    [
        {"kl_warmup": 2},
        {"gradient_clip": 0.05},
        {"schedule": "cosine", "validation": 0.3, "epochs": 4},
        {"objective": "iwae"},
        {"objective": "stl", "kl_warmup": 1},
    ],
    ids=str,
)
def test_same_fit_with_options(case: str, options: dict[str, object]) -> None:
    if case == "conditional" and "validation" in options:
        options = {**options, "validation": 0.2}
    check_same(case, **options)


def test_same_seed_same_bits_on_the_graph() -> None:
    (one, _), (two, _), (other, _) = (fitted("gaussian", compile="graph", seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_auto_counts_steps() -> None:
    assert fitted("gaussian", epochs=33)[1].path == "pyro"  # 99 whole batches
    few, many = fitted("gaussian", epochs=2)[1], fitted("gaussian", epochs=34)[1]
    assert (few.path, many.path) == ("pyro", "traced")
    assert "6 steps are too few" in few.path_reason


def test_path_is_written_to_the_run(tmp_path: Path) -> None:
    result = fitted("gaussian", compile="graph", out=tmp_path / "run")[1]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment == {"path": "traced", "path_reason": result.path_reason}


@pytest.mark.parametrize("kind", ["free", "exact"])
def test_what_cannot_be_traced_takes_the_plain_path_and_says_why(kind: str) -> None:
    x = torch.randn(40, 3)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
    guide = ExactGuide(model) if kind == "exact" else FreeGuide(2, 3, 40).start_from(x)
    with pytest.warns(PathWarning, match="compile: the pyro path is taken; the program cannot be traced"):
        result = fit(probvae.VAE(model, guide), x, epochs=1, batch_size=20, compile="graph", progress=False)
    assert result.path == "pyro"
    assert result.path_reason.startswith("the program cannot be traced: aten._local_scalar_dense")


def test_a_random_number_of_pythons_own_is_found_out() -> None:
    """What torch does not see is in the graph as it was once: the comparison with Pyro's own step shows it."""

    class Shaky(LinearDecoder):
        """Multiplies by another number at every call."""

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z) * float(np.random.default_rng().random())

    model = LatentModel(StandardNormalPrior(2), Shaky(2, 3), GaussianLikelihood(3))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(3, (5,)), 2))
    with pytest.warns(PathWarning, match="not trusted"):
        result = fit(vae, torch.randn(40, 3), epochs=1, batch_size=20, compile="graph", progress=False)
    assert result.path == "pyro"
    assert "not trusted: the loss differs from Pyro's by" in result.path_reason


@pytest.mark.parametrize("compile", [False, "graph"])
def test_a_fit_that_runs_away_says_the_same_on_both_paths(compile: str | bool) -> None:
    with pytest.raises(NonFiniteLossError, match=r"site '(z|x)', epoch \d+, batch \d+:.*Lower learning_rate"):
        fitted("gaussian", compile=compile, learning_rate=1e18, epochs=20)


def test_weights_that_are_broken_before_the_fit() -> None:
    vae, x, _ = gaussian()
    with torch.no_grad():
        vae.model.decoder.network[0].bias[0] = torch.nan
    with pytest.raises(NonFiniteLossError, match="site 'x', epoch 1, batch 1: Expected parameter loc"):
        fit(vae, x, epochs=1, batch_size=16, compile="graph", progress=False)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_another_value_of_compile_is_an_error(value: object) -> None:
    with pytest.raises(ArgumentError, match="compile: expected 'auto', 'graph', True or False, got"):
        fitted("gaussian", compile=value)


def test_without_a_compiler_the_graph_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.warns(PathWarning, match="the traced path is taken; it cannot be compiled: there is no C.. compiler"):
        result = fitted("gaussian", compile=True)[1]
    assert (result.path, result.path_reason) == (
        "traced",
        "it cannot be compiled: there is no C++ compiler (g++ or clang++)",
    )


@pytest.mark.slow  # the compiler takes a quarter of a minute for each
@pytest.mark.parametrize(
    ("case", "options"), [("gaussian", {}), ("fresh", {}), ("conditional", {"kl_warmup": 2, "gradient_clip": 0.05})]
)
def test_compiled_fit_is_the_same(case: str, options: dict[str, object]) -> None:
    """The same random numbers, the same steps: float64 to rounding, after nine compiled steps and three plain ones."""
    check_same(case, "compiled", True, **options)


@pytest.mark.slow
def test_compiled_fit_that_runs_away() -> None:
    with pytest.raises(NonFiniteLossError, match=r"site '(z|x)', epoch \d+, batch \d+:.*Lower learning_rate"):
        fitted("gaussian", compile=True, learning_rate=1e18, epochs=20)
