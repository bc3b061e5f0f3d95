"""All files of a command take their places, or none: on a full disk, after a kill, and where a folder takes no file."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK_REPORT
from tests.faults.killing import ROOT, with_fault
from tests.support.command_line import run_process

# A command with several files, the first of which is not the last to be written
COMMANDS = {
    "gap": ("--num-data", "5"),
    "encode": (),
    "sample": ("-n", "9"),
    "reconstruct": (),
}
SWEEP = ("--set", "data.source=iris", "--set", "training.epochs=1", "--set", "training.batch_size=32", "--sweep")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def run_with(fault: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which ends, or has no disk any more, at a step of its writing."""
    return run_process(*arguments, cwd=cwd, **with_fault({"PYTHONPATH": str(ROOT)}, fault))


# Each command writes three files, which then move
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["file-written:1", "file-written:2", "file-flushed:4", "file-flushed:5"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_leaves_old_files_beside_old_files(name: str, fault: str, run: Path) -> None:
    first = run_process(name, "run", *COMMANDS[name], cwd=run.parent)
    assert first.returncode == 0, first.stderr
    for file in run.glob("*.*"):
        if file.suffix in (".npz", ".png", ".svg") or file.name == "gap.json":
            file.write_bytes(b"old")
    before = contents(run)
    done = run_with(f"{fault}:full", name, "run", *COMMANDS[name], cwd=run.parent)
    assert done.returncode == 2, done.stdout
    assert "No space left on device" in done.stderr
    assert contents(run) == before


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_where_nothing_was(run: Path) -> None:
    done = run_with("file-flushed:6:full", "encode", "run", "--out", "new/place", cwd=run.parent)
    assert done.returncode == 2
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["file-opened:1:kill", "file-written:3:kill"])
def test_a_killed_report_leaves_nothing_for_ever(fault: str, run: Path) -> None:
    before = contents(run)
    killed = run_with(fault, "report", "run", *QUICK_REPORT, cwd=run.parent)
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert len(left) == 1
    (run / ".writing-ab12_x9z").mkdir()
    done = run_process("encode", "run", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert not left[0].exists()
    assert (run / ".writing-ab12_x9z").exists()
    assert before.items() <= contents(run).items()


@pytest.mark.parametrize("obstacle", ["a file above", "a folder of the same name", "a folder that takes no file"])
def test_compare_looks_at_its_folder_before_the_first_fit(obstacle: str, probvae, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if obstacle == "a file above":
        out.write_text("")
    elif obstacle == "a folder of the same name":
        (out / "compare.json").mkdir(parents=True)
    else:
        if os.geteuid() == 0 and not sys.platform.startswith("linux"):
            pytest.skip("the superuser may write everywhere")
        out = Path("/proc/self/fdinfo") if os.geteuid() == 0 else out
        if os.geteuid():
            out.mkdir(mode=0o500)
    done = probvae("compare", *SWEEP, "beta=0.5,1", "--out", out, cwd=tmp_path)
    assert done.returncode == 2
    assert "1/2" not in done.stderr
    assert str(out) in done.stderr
    assert not list(tmp_path.rglob("config.toml"))


def test_a_command_that_is_refused_leaves_no_folder(probvae, small_run: Path, tmp_path: Path) -> None:
    for arguments in (("gap", small_run, "--truth", "exact"), ("compare", small_run, "--baseline", "nothing")):
        done = probvae(*arguments, "--out", "new/folder", cwd=tmp_path)
        assert done.returncode == 2
        assert not list(tmp_path.iterdir())
