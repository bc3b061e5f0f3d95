"""What is refused before it costs time or memory, each with its own message."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.faults.bad_arrays import X
from tests.faults.bad_runs import write_run
from tests.faults.running import QUICK, call, contents
from tests.support.memory import limited_memory, peak, reset_peak

MB = 2**20
FIT = ["fit", "--data", "good.npy", *QUICK]
GENERATED = ["fit", "--data", "linear-gaussian", *QUICK, "--set"]

REFUSED = {
    "latent dimensions": ([*FIT, "--latent-dim", "1000000000"], 2, "at most 536870912 weights"),
    "layers": ([*FIT, "--hidden", "1000000,1000000"], 2, "at most 536870912 weights"),
    "transforms": ([*FIT, "--prior", "flow", "--set", "model.prior.num_transforms=1000000000"], 2, "20000 steps"),
    "components": ([*FIT, "--prior", "mixture", "--set", "model.prior.num_components=1000000000"], 2, "at most"),
    "storage": ([*FIT, "--latent-dim", "9223372036854775807"], 2, "overflowed"),
    "a part's own part": (
        [*FIT, "--guide", "exact", "--set", "inference.guide.model=5"],
        2,
        "no attribute 'latent_dim'",
    ),
    "steps": ([*FIT, "--guide", "semi-amortized", "--set", "inference.guide.num_steps=1000000000"], 2, "<= 10000"),
    "particles": ([*FIT, "--num-particles", "1000000000"], 1, "not enough memory"),
    "rows": ([*GENERATED, "data.options.num_data=1000000000"], 2, "do not fit into memory"),
    "columns": ([*GENERATED, "data.options.data_dim=1000000000"], 2, "do not fit into memory"),
    "magnitude": (["fit", "--data", "large.npy", *QUICK], 2, "magnitudes below 1e\\+19.*Use --scaling standardize"),
    "seed": ([*FIT, "--seed", "-1"], 2, "--seed: expected an integer >= 0"),
    "device": ([*FIT, "--device", "meta"], 2, "'meta' is not available here"),
    "draws": (["sample", "run", "-n", "1000000000"], 2, "--num-samples: expected an integer <= 33554432"),
    "seed of draws": (["sample", "run", "--seed", "9" * 30], 2, "not in the range"),
    "target": ([*FIT, "--out", "x" * 300], 2, "File name too long"),
    "name": (["fit", "--data", "\udcff.npy", *QUICK], 2, "expected names and text in UTF-8"),
    "steering": (["fit", "--data", "\x1b[31m\n.npy", *QUICK], 2, r"\\x1b\[31m\\n.npy: there is no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, code, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "sample":
        write_run(tmp_path)
    np.save("good.npy", X)
    np.save("large.npy", X * np.float64(1e37))
    before, floor = contents(tmp_path), reset_peak()
    with limited_memory(4096 * MB):
        exit_code, text = call(arguments)
    assert exit_code == code
    assert len(text.splitlines()) <= 4
    assert re.search(message, text), text
    assert peak() - floor < 512 * MB
    if code == 2:
        assert contents(tmp_path) == before


def test_large_data_can_be_standardised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("large.npy", X * np.float64(1e37))
    assert call(["fit", "--data", "large.npy", "--scaling", "standardize", *QUICK])[0] == 0


def test_a_run_whose_data_have_other_columns_leaves_no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path)
    recipe = tmp_path / "run" / "config.toml"
    recipe.write_text(recipe.read_text().replace("good.npy", "iris"))
    code, text = call(["sample", "run", "--out", "new"])
    assert code == 2
    assert "iris has 4 columns, the model of run has 3" in text
    assert not (tmp_path / "new").exists()
