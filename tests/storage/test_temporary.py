"""Only what carries our own mark is removed, and no user's name is a pattern."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import torch

import probvae
from probvae.storage.files import staged, write_text
from probvae.storage.temporary import marked_folder, remove_leftovers

TOKEN = "0123456789abcdef" * 2
# Names beside a run and inside it that the package has removed before, or might take for its own
THEIRS = (
    ".run.bak",
    ".run.killed",
    ".keep.me",
    ".git.disabled",
    ".env.template",
    ".config.original",
    ".notes.20260101",
    ".writing-ab12_x9z",
    ".metrics.jsonl.ab12_x9z.jsonl",
    ".probvae-notes",
    f".probvae-{TOKEN}",
    f".probvae-{TOKEN}.bak",
)
LEFT = """
import os, signal, sys
from pathlib import Path
from probvae.storage.temporary import marked_folder
with marked_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("written")
    print(folder.name, flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def fitted(run: Path, resume: bool = False) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    probvae.fit(probvae.VAE.example(), x, epochs=2, batch_size=10, out=run, resume=resume, progress=False)


def fill(folder: Path) -> dict[str, bytes]:
    """Each of THEIRS twice, as a file and as a folder with a lock in it; what there is then."""
    for name in THEIRS:
        (folder / f"{name}.d" / "inside").mkdir(parents=True)
        (folder / f"{name}.d" / ".lock").touch()
        (folder / name).write_text(name)
    for name in (f".probvae-{'f' * 32}", ".keep.me.folder", ".run.ab12_x9z"):
        (folder / name).mkdir()
        (folder / name / ".lock").touch()
        (folder / name / "lock").touch()
        (folder / name / "token").write_text(TOKEN)  # of another name than its folder's
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(".*/*") if path.is_file()} | {
        str(path.relative_to(folder)): b"" for path in folder.rglob(".*")
    }


def left_by(folder: Path) -> Path:
    """What a process that was killed there has left."""
    done = subprocess.run([sys.executable, "-c", LEFT, str(folder), "kill"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    return folder / done.stdout.strip()


@pytest.mark.parametrize("name", ["run", "*", "a**", "[a-z]*", "?", "{run,keep}"])
def test_a_fit_leaves_all_that_is_beside_it(name: str, tmp_path: Path) -> None:
    there = fill(tmp_path)
    fitted(tmp_path / name)
    assert probvae.load(tmp_path / name)
    assert there.items() <= contents(tmp_path).items()


def test_a_finished_run_that_was_moved_stays(tmp_path: Path) -> None:
    for name in (".run.bak", ".run.abcd1234", f".probvae-{TOKEN}"):
        fitted(tmp_path / "run")
        (tmp_path / "run").rename(tmp_path / name)
    fitted(tmp_path / "run")
    assert all(probvae.load(tmp_path / name) for name in (".run.bak", ".run.abcd1234", f".probvae-{TOKEN}"))


def test_resuming_leaves_what_is_in_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fitted(run)
    there = [fill(run), fill(run / "checkpoints")]
    fitted(run, resume=True)
    assert there[0].items() <= contents(run).items()
    assert there[1].items() <= contents(run / "checkpoints").items()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    fitted(tmp_path / "run")
    places = (tmp_path, tmp_path / "run", tmp_path / "run" / "checkpoints")
    left = [left_by(place) for place in places]
    assert all((folder / "half").exists() for folder in left)
    fitted(tmp_path / "run", resume=True)
    fitted(tmp_path / "other")
    assert not any(folder.exists() for folder in left)


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT, str(tmp_path), "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive:
        assert alive.stdin is not None
        assert alive.stdout is not None
        folder = tmp_path / alive.stdout.readline().strip()
        remove_leftovers(tmp_path)
        with staged(tmp_path) as stage:
            write_text(stage / "a", "text")
        assert (folder / "half").read_text() == "written"
        alive.stdin.close()
    assert not folder.exists()


@pytest.mark.parametrize("change", ["renamed", "copied", "another token", "no token", "no lock", "a link"])
def test_what_has_lost_its_mark_stays(change: str, tmp_path: Path) -> None:
    left = left_by(tmp_path)
    there = left
    if change in ("renamed", "copied", "a link"):
        there = tmp_path / f".probvae-{TOKEN}"
        if change == "renamed":
            left.rename(there)
        elif change == "copied":
            shutil.copytree(left, there)
        else:
            (tmp_path / "elsewhere").mkdir()
            left = left.rename(tmp_path / "elsewhere" / left.name)
            (left / "token").write_text(TOKEN)
            there.symlink_to(left)
    elif change == "another token":
        (left / "token").write_text(TOKEN)
    else:
        (left / change.removeprefix("no ")).unlink()
    remove_leftovers(tmp_path)
    assert (there / "half").read_text() == "written"


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    left = left_by(tmp_path)
    (tmp_path / "precious").write_text("precious")
    (left / "lock").unlink()
    (left / "lock").symlink_to(tmp_path / "precious")
    remove_leftovers(tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (left / "half").exists()


def test_a_marked_folder_ends_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), marked_folder(tmp_path) as folder:
        folder.joinpath("half", "way").touch()
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_being_written_is_nobody_elses(tmp_path: Path) -> None:
    fitted(tmp_path / "run")
    with (
        filelock.FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(probvae.errors.RunError, match="another process is writing this run"),
    ):
        fitted(tmp_path / "run", resume=True)


EIGHT = ("--data", "iris", "--epochs", "1", "--batch-size", "32", "--hidden", "4", "--no-gap", "--no-figures", "--json")


@pytest.mark.slow
def test_eight_fits_that_start_together_take_eight_names(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "probvae", "fit", *EIGHT, "--no-progress"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(8)]
    ended = [(process, *process.communicate(timeout=400)) for process in processes]
    assert [process.returncode for process, _, _ in ended] == [0] * 8, [err for _, _, err in ended]
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == [f"iris-{number:03d}" for number in range(1, 9)]
    told = sorted(out.split('"run": "')[1].split('"')[0] for _, out, _ in ended)
    assert told == [f"runs/{name}" for name in names]
    assert all((tmp_path / run / "summary.json").exists() for run in told)


def test_a_name_that_is_taken_meanwhile_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another fit takes each name between the first look and the moment in which the run appears."""
    from probvae.experiments import run as experiments
    from probvae.experiments.recipe import merge, resolve

    monkeypatch.chdir(tmp_path)
    training = {"epochs": 1, "batch_size": 32}
    recipe = merge(resolve([]), {"data": {"source": "iris"}, "training": training})
    parts = experiments._parts

    def late(*arguments: object) -> object:
        for number in (1, 2, 4):
            (tmp_path / "runs" / f"iris-{number:03d}" / "full").mkdir(parents=True)
        return parts(*arguments)

    monkeypatch.setattr(experiments, "_parts", late)
    found = experiments.run_recipe(recipe, progress=False, ledger=False)
    assert found is not None
    assert found.summary["run"] == "runs/iris-003"
    assert (tmp_path / "runs" / "iris-003" / "summary.json").exists()
