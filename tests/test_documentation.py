"""The examples in docstrings run, and the README is what a newcomer needs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import probvae

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name for module in pkgutil.walk_packages(probvae.__path__, "probvae.") if "__main__" not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    names = {"torch": torch, "VAE": probvae.VAE}
    result = doctest.testmod(module, extraglobs={n: v for n, v in names.items() if not hasattr(module, n)})
    assert result.failed == 0


@pytest.mark.parametrize("name", probvae.__all__)
def test_public_names_are_documented(name: str) -> None:
    assert len((getattr(probvae, name).__doc__ or "").strip()) > 30


def test_readme_is_short_and_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 120
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("epochs=100", "epochs=2"), "README.md", "exec"), {})
    assert (tmp_path / "digits.safetensors").is_file()


def test_readme_names_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme) + re.findall(
        r"(?:models|inference)/[\w-]+\.toml", readme
    ):
        if path.split("/")[-1] not in ("x.toml", "y.toml"):
            assert (ROOT / path).exists(), path
