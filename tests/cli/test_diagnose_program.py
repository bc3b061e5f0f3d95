"""`probvae diagnose-program`: example A written by hand, and files that do not give what is needed."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import run_process

# d = 1, D = 2: p(z) = N(0, 1), x = w z + noise with the variance 1/4; the posterior is N(w x / (w w + 1/4), ...)
PROGRAMS = """
import pyro
import torch
from pyro import distributions as dist

torch.manual_seed(4)
W = torch.tensor([1.0, -0.5])
PRECISION = 1 + W @ W / 0.25


def model(x):
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("obs", dist.Normal(z.unsqueeze(-1) * W, 0.5).to_event(1), obs=x)


def guide_with(factor):
    def guide(x):
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("code", dist.Normal(x @ W / 0.25 / PRECISION, factor / PRECISION.sqrt()))
    return guide


def data(n=200):
    return torch.randn(n, 1) * W + 0.5 * torch.randn(n, 2)


def exact():
    return model, guide_with(1.0), data()


def narrow():
    return model, guide_with(0.7), data()


def without_data():
    return model, guide_with(1.0)


class Pair:
    model, guide, x = staticmethod(model), staticmethod(guide_with(1.0)), data()


pair_tuple = (model, guide_with(1.0), data())


def broken():
    return 1 / 0


three_numbers = (1, 2, 3)
no_tensor = (model, guide_with(1.0), [1, 2])
one = 1
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "by_hand.py"
    path.write_text(PROGRAMS)
    return path


def test_an_exact_guide_has_nothing_against_it(probvae, file: Path, tmp_path: Path) -> None:
    done = probvae("diagnose-program", f"{file}:exact", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "diagnosis.json").read_text())
    assert found["status"] == "ok", found["verdicts"]
    assert {verdict["status"] for verdict in found["verdicts"]} == {"ok"}
    assert "gap/total" in done.stdout
    assert "by_hand.py:exact on 200 data" in done.stdout
    assert "z_1 is code" in done.stdout
    assert found["latents"] == ["code"]


def test_a_narrow_guide_fails(probvae, file: Path, tmp_path: Path) -> None:
    done = probvae("diagnose-program", f"{file}:narrow", "--quick", "--json", "--out", tmp_path)
    found = json.loads(done.stdout)
    assert found["status"] == "fail"
    statuses = {verdict["name"]: verdict["status"] for verdict in found["verdicts"]}
    assert statuses["calibration/central_coverage"] == "fail"
    # KL(N(m, 0.49 s^2) || N(m, s^2))
    gap = found["gap"]["total"]
    assert abs(gap["value"] - 0.5 * (0.49 - 1 - np.log(0.49))) < 5 * gap["standard_error"] + 1e-3


@pytest.mark.parametrize("name", ["Pair", "pair_tuple"])
def test_other_ways_to_give_them(probvae, file: Path, tmp_path: Path, name: str) -> None:
    done = probvae("diagnose-program", f"{file}:{name}", "--quick", "--num-data", "30", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 30 data" in done.stdout


def test_data_from_a_file(probvae, file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    done = probvae("diagnose-program", f"{file}:without_data", tmp_path / "x.npy", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 40 data of" in done.stdout


MISTAKES = [
    ("by_hand.py", [], r"program: expected FILE.py:NAME, got .*For example models/by_hand.py:digits"),
    ("nowhere.py:exact", [], "nowhere.py, which is none. Check the path"),
    ("by_hand.py:exakt", [], "unknown name in .*by_hand.py: 'exakt'. Did you mean 'exact'"),
    ("by_hand.py:broken", [], r"it stopped at line \d+ .ZeroDivisionError: division by zero.. Mend it there"),
    ("by_hand.py:one", [], "expected one to be a function without arguments .*; got int"),
    ("by_hand.py:three_numbers", [], "expected the model of three_numbers to be callable, got int"),
    ("by_hand.py:no_tensor", [], "expected the x of no_tensor to be a torch.Tensor, got list"),
    ("by_hand.py:without_data", [], "gives no x. Return .model, guide, x., or name the data"),
    ("by_hand.py:exact", ["--scaling", "unit"], "scaling: these prepare DATA, and none was named"),
    ("by_hand.py:exact", ["nothing.npy"], "nothing.npy: there is no such file"),
    ("by_hand.py:exact", ["iris"], r"guide: it failed for x of shape \(64, 4\) \(RuntimeError: size mismatch"),
]


@pytest.mark.parametrize(("program", "more", "message"), MISTAKES, ids=[f"{p} {m}" for p, m, _ in MISTAKES])
def test_mistakes(probvae, file: Path, tmp_path: Path, program: str, more: list[str], message: str) -> None:
    import re

    done = probvae("diagnose-program", file.parent / program, *more, "--quick", "--out", tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "diagnosis.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise SystemExit(3)\n", "it stopped at line 2 .SystemExit: 3"),
        ("def f(:\n", "it stopped at line 1 .SyntaxError"),
        ("import no_such_module_here\n", "it stopped at line 1 .ModuleNotFoundError"),
    ],
)
def test_files_that_do_not_run(probvae, tmp_path: Path, text: str, message: str) -> None:
    import re

    (tmp_path / "bad.py").write_text(text)
    done = probvae("diagnose-program", f"{tmp_path / 'bad.py'}:exact", "--out", tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr


def test_modules_beside_the_file_are_found(probvae, file: Path, tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_the_program.py").write_text(PROGRAMS)
    (tmp_path / "main_program.py").write_text("from neighbour_of_the_program import exact\n")
    program = f"{tmp_path / 'main_program.py'}:exact"
    done = probvae("diagnose-program", program, "--quick", "--num-data", "20", "--out", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_in_models(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "models" / "by_hand.py"
    done = run_process("diagnose-program", f"{example}:digits", "--quick", "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdicts = json.loads((tmp_path / "diagnosis.json").read_text())["verdicts"]
    assert "gap/total" in {verdict["name"] for verdict in verdicts}
