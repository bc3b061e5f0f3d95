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


def test_the_gap_in_the_readme_has_its_error_and_its_number_of_data() -> None:
    """benchmarks/readme_gap.py writes it; its --check fits again and compares."""
    from benchmarks.readme_gap import SENTENCE, numbers_of

    found = SENTENCE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    total, approximation, amortisation = numbers_of(found[1])
    assert re.match(r"On the \d+ held-out digits", found[1])
    assert abs(total[0] - approximation[0] - amortisation[0]) < 0.02
    assert all(error > 0 for _, error in (total, approximation, amortisation))


def test_readme_names_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme) + re.findall(
        r"(?:models|inference)/[\w-]+\.toml", readme
    ):
        if path.split("/")[-1] not in ("x.toml", "y.toml"):
            assert (ROOT / path).exists(), path


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
FRAME = re.compile(r"^\| \d+ \| `([\w./]+)` \| `(\w+)` \|", re.MULTILINE)


def frames(title: str) -> list[tuple[str, str]]:
    """File and function of the frames below ``title`` in docs/architecture.md."""
    return FRAME.findall(ARCHITECTURE.split(f"## {title}\n")[1].split("\n## ")[0])


def test_the_map_names_files_and_functions_that_exist() -> None:
    for path in set(re.findall(r"`((?:probvae|docs|tests|benchmarks)/[\w./]*)`", ARCHITECTURE)):
        assert (ROOT / path).exists(), path
    for file, function in frames("The way of a fitted VAE to the page"):
        assert re.search(rf"^ *def {function}\(", (ROOT / file).read_text(), re.MULTILINE), (file, function)


def test_a_fit_enters_the_ten_frames_of_the_map_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from house_walk import calls_of_fit

    told = frames("The way of x, from fit to the loss")
    assert len(told) == 10
    calls = iter([(f"probvae/{file}", function) for file, function in calls_of_fit()])
    missed = [frame for frame in told if frame not in calls]  # an iterator goes on where the last frame was found
    assert not missed[:1]
