"""The same seed gives the same bits whatever went before, and nothing of the caller's is left changed."""

import json
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401  its import adds to the warnings' filters, and draws a number of Python's
import sympy  # noqa: F401  torch imports it where shapes are broadcast first, and it adds to the warnings' filters
import torch
from torch import Tensor

import probvae
from probvae.experiments.recipe import check_recipe, resolve
from probvae.experiments.run import run_recipe
from probvae.inference import DiagonalGuide, MLPEncoder, posterior_mean, reconstruct
from probvae.inference.evaluation.memory import limited_memory
from probvae.inference.evaluation.refine import refine
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior
from tests.support.command_line import run_here, run_process

DIM, NUM_DATA = 3, 24
# what else is written holds times, or names the run's folder
COMPARED = ("model.safetensors", "metrics.jsonl", "config.toml")
FIT = (
    "fit",
    "--epochs",
    "3",
    "--hidden",
    "8",
    "--latent-dim",
    "1",
    "--num-data",
    "300",
    "--no-figures",
    "--no-progress",
)


def data() -> Tensor:
    return torch.randn(NUM_DATA, DIM, generator=torch.Generator().manual_seed(1))


def make(latent_dim: int = 2) -> probvae.VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LatentModel(StandardNormalPrior(latent_dim), MLPDecoder(latent_dim, DIM, (5,)), GaussianLikelihood(DIM))
        return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, (5,)), latent_dim))


def fitted(path: str | bool, folder: Path) -> Any:
    vae = make()
    result = probvae.fit(
        vae, data(), epochs=2, batch_size=8, validation=0.2, compile=path, progress=False, out=folder / "run", seed=3
    )
    timeless = [{key: value for key, value in record.items() if key != "seconds"} for record in result.history]
    return list(vae.state_dict().values()), timeless


def gaps(folder: Path) -> Any:
    result = probvae.posterior_gap(make(), data()[:5], num_samples=50)
    return result.total.value, result.amortisation.value


def diagnosed(folder: Path) -> Any:
    found = probvae.diagnose(make(), data(), quick=True, truth="importance")
    return [verdict.as_dict() for verdict in found.verdicts]


def refined(folder: Path) -> Any:
    return list(refine(make(), data()[:5]).guide.state_dict().values())


def evidence(method: str, num_samples: int = 50) -> Callable[[Path], Any]:
    return lambda folder: probvae.log_evidence(make(), data()[:5], method, num_samples=num_samples).value


def whole_run(folder: Path) -> Any:
    small = {"decoder": {"name": "mlp", "hidden": [5]}}
    recipe = {
        "model": small,
        "inference": {"encoder": {"name": "mlp", "hidden": [5]}},
        "training": {"epochs": 2, "batch_size": 32},
        "data": {"source": "iris"},
    }
    done = run_recipe(resolve([check_recipe(recipe)]), folder / "run", progress=False, ledger=False)
    assert done is not None
    return [(folder / "run" / name).read_bytes() for name in COMPARED], done.summary["elbo"]


# by scikit-learn and torch's compiler
SET_BY_IMPORTS = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}

# what takes a seed, each in a folder of its own
SEEDED: dict[str, Callable[[Path], Any]] = {
    "fit, plain": lambda folder: fitted(False, folder),
    "fit, traced": lambda folder: fitted("graph", folder),
    "a recipe's run": whole_run,
    "posterior_gap": gaps,
    "diagnose": diagnosed,
    "refine": refined,
    "evidence by quadrature": evidence("quadrature"),
    "evidence by annealing": evidence("annealed", num_samples=4),
    "evidence by importance": evidence("importance"),
}


def callers() -> dict[str, Any]:
    """His generators and settings, beside those that tests/conftest.py looks at."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "numpy's generator": [name, keys.tolist(), *rest],
        "warnings": list(warnings.filters),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)},
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "oneDNN": (torch.backends.mkldnn.enabled, torch.backends.mkldnn.deterministic),
        "flush denormals": (torch.tensor(1e-39) * 1).item() > 0,
        "errors of numpy": np.geterr(),
        "environment": {name: value for name, value in os.environ.items() if name not in SET_BY_IMPORTS},
        "folder": Path.cwd(),
    }


@pytest.fixture
def callers_seeds() -> Iterator[None]:
    """The caller's generators as they were, after a test has moved them."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


@pytest.mark.usefixtures("callers_seeds")
@pytest.mark.parametrize("name", SEEDED)
def test_same_bits_whatever_the_caller_has_drawn_and_nothing_of_his_is_changed(name: str, tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        folder = tmp_path / str(number)
        folder.mkdir()
        before = callers()
        found.append(SEEDED[name](folder))
        assert [name for name, value in callers().items() if value != before[name]] == []
        probvae.fit(make(1), data(), epochs=1, batch_size=8, seed=9, progress=False)  # another fit between them
    assert_same_bits(*found)


def assert_same_bits(one: Any, two: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_same_bits(first, second)
    else:
        assert one == two


def test_the_bits_would_tell_another_seed(tmp_path: Path) -> None:
    one, two = (probvae.log_evidence(make(), data()[:5], "importance", num_samples=50, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.value, two.value)


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """Python's hashes differ in it, and so does the order of its sets; and this one has run other tests before."""
    other = run_process(*FIT, "--out", "other", cwd=tmp_path, PYTHONHASHSEED="1")
    assert other.returncode == 0, other.stderr
    here = run_here(*FIT, "--out", "here", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    for name in COMPARED:
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("other", "here"))
    times = {"seconds", "fit_seconds", "evaluation_seconds", "ledger_seconds", "run"}
    assert {key: one[key] for key in one.keys() - times} == {key: two[key] for key in two.keys() - times}


@pytest.mark.parametrize("memory_limit", [2**16, 2**20, 2**26])
def test_chunks_change_no_number_beyond_rounding(memory_limit: int) -> None:
    """What has no random numbers, in parts of some rows and in one."""
    vae, x = make(), torch.randn(2000, DIM, generator=torch.Generator().manual_seed(2))

    def numbers() -> list[Tensor]:
        exact = probvae.log_evidence(vae, x[:20], "quadrature").value
        return [exact, posterior_mean(vae, x), reconstruct(vae, x)]

    whole = numbers()
    with limited_memory(memory_limit):
        parts = numbers()
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
