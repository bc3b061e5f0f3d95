"""The compiler's cache folder: ours beside the user's, and the user's as it was."""

import os
from pathlib import Path

import pytest

from probvae.inference.compiled.compiler import own_cache


@pytest.mark.slow  # it imports torch's compiler
@pytest.mark.parametrize("is_set", [True, False])
def test_half_built_files_are_removed_in_our_own_folder_only(
    is_set: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.codecache as codecache

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    if is_set:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "theirs"))
    parent = tmp_path / "theirs" if is_set else next(tmp_path.glob("torchinductor_*"), None) or _default(tmp_path)
    before = dict(os.environ), codecache._HEADER_DIR
    for folder in (parent / "ab", parent / "probvae" / "ab", parent / "probvae" / "precompiled_headers"):
        (folder / "abc.main_CxxBuild").mkdir(parents=True)
        (folder / "abc.main.so").write_bytes(b"half")
    with own_cache():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(parent / "probvae")
        assert Path(codecache._HEADER_DIR).parent == parent / "probvae"
    assert (dict(os.environ), codecache._HEADER_DIR) == before
    assert [file.parent for file in parent.rglob("*.so")] == [parent / "ab"]


def _default(tmp_path: Path) -> Path:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = Path(default_cache_dir())
    assert folder.parent == tmp_path
    return folder
