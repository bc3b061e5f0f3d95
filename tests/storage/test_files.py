"""Several files that take their places together, or not at all."""

from pathlib import Path

import pytest

from probvae.errors import RunError
from probvae.storage.files import staged


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(stage: Path, text: str) -> None:
    (stage / "figures").mkdir()
    (stage / "figures" / "a.svg").write_text(text)
    (stage / "report.html").write_text(text)


def test_files_take_their_places_when_all_are_written(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "other.svg").write_text("other")
    (tmp_path / "report.html").write_text("old")
    with staged(tmp_path) as stage:
        write(stage, "new")
        assert (tmp_path / "report.html").read_text() == "old"
    assert contents(tmp_path) == {"figures/a.svg": "new", "figures/other.svg": "other", "report.html": "new"}


def write_and_fail(stage: Path, error: type[BaseException]) -> None:
    write(stage, "new")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_all_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(error), staged(tmp_path) as stage:
        write_and_fail(stage, error)
    assert contents(tmp_path) == {"report.html": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["report.html", "figures"])
def test_what_is_in_the_way_is_found_before_anything_moves(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name == "report.html" else (tmp_path / name).write_text("a file")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="a file and a folder have this name"), staged(tmp_path) as stage:
        write(stage, "new")
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="cannot be written"), staged(tmp_path / "file"):
        raise AssertionError("not reached")


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    with staged(tmp_path / "new" / "folder") as stage:
        write(stage, "text")
    assert contents(tmp_path / "new" / "folder") == {"figures/a.svg": "text", "report.html": "text"}
