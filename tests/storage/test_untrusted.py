"""Files that somebody else may have made: kind, size, links, and the descriptions in them."""

import os
from pathlib import Path

import pytest
import torch

from probvae.errors import DataError, RunError
from probvae.storage.untrusted import (
    FORMAT,
    bounded_build,
    check_file,
    check_finite_tensors,
    read_description,
    refuse_link,
    run_file,
)


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


def test_a_description_is_checked_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    good = {"format": str(FORMAT), "components": "[prior]\nname = 'normal'"}
    assert read_description(file, good) == {"prior": {"name": "normal"}}
    for metadata, message in (
        ({}, "expected a probvae model of format"),
        ({**good, "format": "one"}, "expected a probvae model of format"),
        ({**good, "format": str(FORMAT + 1), "probvae": "9.9"}, "by probvae 9.9"),
        ({**good, "components": "x = 1\n" * 2**20}, "longer than any"),
        ({**good, "components": "[prior"}, "is damaged"),
    ):
        with pytest.raises(RunError, match=message):
            read_description(file, metadata)


def test_what_is_built_is_bounded_by_the_weights(tmp_path: Path) -> None:
    weights = {"w": torch.zeros(10)}
    with bounded_build(tmp_path, weights):
        torch.zeros(10**6)
    with pytest.raises(RunError, match=r"is damaged .*expected at most"), bounded_build(tmp_path, weights):
        torch.zeros(10**9)
    with pytest.raises(RunError, match=r"is damaged \(ZeroDivisionError"), bounded_build(tmp_path, weights):
        _ = 1 / 0


def test_tensors_are_finite_and_nan_is_a_missing_entry_of_data(tmp_path: Path) -> None:
    tensors = {"weight": torch.tensor([1.0, 2.0]), "data": torch.tensor([1.0, torch.nan])}
    check_finite_tensors(tmp_path, tensors, {"data"})
    with pytest.raises(RunError, match="data has entries that are not finite"):
        check_finite_tensors(tmp_path, tensors)
    with pytest.raises(RunError, match="data has entries that are not finite"):
        check_finite_tensors(tmp_path, {"data": torch.tensor([torch.inf])}, {"data"})
