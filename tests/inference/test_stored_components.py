"""Model files of every component of every release are read, and give the densities that were noted then."""

import json

import pytest

import probvae
from tests.stored_runs.components import HERE, densities

EXPECTED = {
    (folder, name): expected
    for folder in sorted(HERE.glob("components-*"))
    for name, expected in json.loads((folder / "expected.json").read_text()).items()
}


def test_the_release_is_stored() -> None:
    assert len([name for folder, name in EXPECTED if folder.name == "components-0.1.0"]) == 35


@pytest.mark.parametrize(("folder", "name"), EXPECTED, ids=[f"{folder.name}-{name}" for folder, name in EXPECTED])
def test_a_stored_component_gives_its_densities(folder, name: str) -> None:
    expected = EXPECTED[folder, name]
    vae = probvae.load(folder / f"{name}.safetensors")
    found = densities(vae, expected["at"])
    for density, values in expected["densities"].items():
        assert found[density] == pytest.approx(values, rel=1e-6, abs=1e-9), density
