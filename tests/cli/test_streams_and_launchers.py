"""What a machine does to the command line is told: full or closed streams, encodings, variables, little memory."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import run_process

FIT = (
    *("fit", "--data", "iris", "--epochs", "1", "--batch-size", "32", "--hidden", "4"),
    *("--no-gap", "--no-figures", "--no-progress", "--out", "run"),
)
PROBVAE = (sys.executable, "-m", "probvae")
LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29501", "LOCAL_RANK": "0"}


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell's, in which $PROBVAE and $FIT stand for the words of the command line."""
    words = {"PROBVAE": " ".join(PROBVAE), "FIT": " ".join(FIT)}
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **words, **environment}
    return subprocess.run(command, shell=True, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


def is_told(message: str) -> bool:
    return "Traceback" not in message and "None" not in message and message.startswith(("probvae: ", "Error: "))


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--json"])
def test_a_fit_is_kept_where_standard_output_is_full(options: str, tmp_path: Path) -> None:
    done = shell(f"$PROBVAE $FIT {options} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert is_told(done.stderr)
    assert "standard output" in done.stderr
    assert "kept in run" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "$PROBVAE $FIT | head -1",
        "$PROBVAE $FIT --json | true",
        "$PROBVAE $FIT >&-",
        "$PROBVAE $FIT 2>&-",
        "$PROBVAE $FIT >&- 2>&-",
        "$PROBVAE $FIT 2>/dev/full",
    ],
)
def test_a_fit_is_kept_where_nobody_listens(line: str, tmp_path: Path) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_a_list_that_cannot_be_written(tmp_path: Path) -> None:
    for line in ("$PROBVAE list priors > /dev/full", "$PROBVAE --help > /dev/full"):
        done = shell(line, tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("probvae: standard output: cannot be written to (No space left on device).")
        assert done.stderr.count("\n") == 1
    assert shell("$PROBVAE fit --prior nothing 2> /dev/full", tmp_path).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "ascii:strict", "latin-1"])
def test_a_name_that_the_terminal_cannot_show(encoding: str, tmp_path: Path) -> None:
    np.save(tmp_path / "データ.npy", np.random.default_rng(0).normal(size=(100, 3)).astype("float32"))
    arguments = [word.replace("iris", "データ.npy") for word in FIT]
    done = run_process(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "\\u30c7\\u30fc\\u30bf.npy" in done.stdout
    gap = run_process("gap", "run", "--num-data", "2", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert gap.returncode == 0, gap.stderr
    assert "\\u30c7\\u30fc\\u30bf.npy" in gap.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "qtagg", ""])
def test_figures_need_no_window(backend: str, tmp_path: Path) -> None:
    arguments = [word for word in FIT if word != "--no-figures"]
    done = run_process(*arguments, cwd=tmp_path, MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "figures" / "learning-curve.png").exists()


@pytest.mark.parametrize("device", ["hpu", "xla", "privateuseone", "meta", "cuda:99", "nothing", "", "7"])
def test_a_device_that_is_not_there(device: str, probvae, tmp_path: Path) -> None:
    done = probvae(*FIT, "--device", device, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"probvae: --device: {device!r} is not available here. Use --device cpu.\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("WORLD_SIZE", value) for value in ("abc", "", "0", "-2", "2.5", "٢x")),
        *(("RANK", value) for value in ("abc", "2", "-1", "")),
        ("LOCAL_RANK", "x"),
        *(("MASTER_PORT", value) for value in ("abc", "-5", "99999999", "", "1e3")),
    ],
)
@pytest.mark.parametrize("command", ["fit", "list"])
def test_a_launcher_that_has_set_no_number(
    name: str, value: str, command: str, probvae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, text in {**LAUNCHED, name: value}.items():
        monkeypatch.setenv(variable, text)
    done = probvae(*(FIT if command == "fit" else ("list", "priors")), cwd=tmp_path)
    assert done.returncode == 2
    if command == "fit" or name == "WORLD_SIZE":
        assert done.stderr.startswith(f"probvae: {name}: expected a whole number")
        assert repr(value) in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("versions", ["null", "[]", '"1.0"', "3", '{"torch": null}', '{"torch": [1]}'])
def test_versions_that_are_damaged(versions: str, probvae, small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    text = (run / "environment.json").read_text()
    first, last = text.index("{", text.index('"versions"')), text.index("}") + 1
    (run / "environment.json").write_text(text[:first] + versions + text[last:])
    for arguments in (("fit", "--resume", "run", "--no-gap", "--no-figures"), ("gap", "run", "--num-data", "2")):
        done = probvae(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def limited(megabytes: int) -> Callable[[], None]:
    size = megabytes * 2**20
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [90, 200, 400, 600, 740, 780, 850, 950, 1050, 1200, 2000])
def test_little_address_space(megabytes: int, tmp_path: Path) -> None:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*PROBVAE, *FIT], cwd=tmp_path, env=variables, capture_output=True, text=True, preexec_fn=limited(megabytes)
    )
    if done.returncode:
        assert done.returncode == 1
        assert done.stderr.startswith("probvae: not enough memory")
        assert "Traceback" not in done.stderr
    else:
        assert (tmp_path / "run" / "summary.json").exists()
