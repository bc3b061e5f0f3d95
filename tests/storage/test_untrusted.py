"""Files that somebody else may have made: kind, size, links."""

import os
from pathlib import Path

import pytest

from probvae.errors import DataError, RunError
from probvae.storage.untrusted import check_file, refuse_link, run_file


def test_only_regular_files_pass(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    check_file(tmp_path / "file", "Give a file.")
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "folder"), (tmp_path / "pipe", "pipe or device"), (Path("/dev/zero"), "pipe or dev")):
        with pytest.raises(RunError, match=f"{path}: expected a file, got a {kind}.*Give a file."):
            check_file(path, "Give a file.")
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "nothing", "Give a file.")


def test_large_files_are_refused_with_the_error_of_the_room(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(bytes(2**20 + 1))
    check_file(file, "Save it as .npy.", 2**20 + 1)
    with pytest.raises(DataError, match=r"the table: expected at most 1 MB of text\. Save it as .npy"):
        check_file(file, "Save it as .npy.", 2**20, "the table", DataError)


def test_links_are_neither_read_nor_written_over(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="link: is a link, which may lead outside of its folder"):
        refuse_link(tmp_path / "link")
    with pytest.raises(RunError, match="link is a link, and a run holds its own files only"):
        run_file(tmp_path, "link")
    refuse_link(tmp_path / "elsewhere")
    assert run_file(tmp_path, "elsewhere") == tmp_path / "elsewhere"
