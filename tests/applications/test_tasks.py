"""Each task on a fitted model returns named arrays that agree with the functions of inference."""

from pathlib import Path

import numpy as np
import pytest
import torch

import probvae
from probvae.applications import encode, fill_missing, open_run, reconstruct_and_compare
from probvae.errors import DataError, RunError
from probvae.experiments.recipe import resolve
from probvae.experiments.run import run_recipe
from probvae.inference import impute, posterior_mean, posterior_scale, reconstruct

SHAPE = (4, 3)


@pytest.fixture
def vae() -> probvae.VAE:
    return probvae.VAE.example()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(SHAPE)


def test_codes_are_the_guide_in_numbers(vae: probvae.VAE, x: torch.Tensor) -> None:
    codes = encode(vae, x, ["a", "b", "a", "b"])
    assert torch.equal(codes.mean, posterior_mean(vae, x))
    assert torch.equal(codes.scale, posterior_scale(vae, x))
    assert codes.labels is not None
    assert codes.labels.tolist() == ["a", "b", "a", "b"]
    assert encode(vae, x).labels is None


def test_reconstructions_stand_beside_their_data(vae: probvae.VAE, x: torch.Tensor) -> None:
    found = reconstruct_and_compare(vae, x)
    assert torch.equal(found.x, x)
    assert torch.equal(found.reconstruction, reconstruct(vae, x))
    assert torch.equal(found.squared_error, (x - found.reconstruction).square().mean(1))


def test_filled_data_say_where_they_were_missing(x: torch.Tensor) -> None:
    recipe = resolve([{"model": {"missing": "mask"}}])
    from probvae.experiments.build import build_vae

    model = build_vae(recipe, 3, 1.0)
    x[1, 2] = x[3, 0] = torch.nan
    filled = fill_missing(model, x, 7, interval=0.5, seed=3)
    for name, values in impute(model, x, 7, interval=0.5, seed=3)._asdict().items():
        assert torch.equal(getattr(filled, name), values)
    assert filled.missing.nonzero().tolist() == [[1, 2], [3, 0]]
    assert filled.num_missing == 2
    assert torch.equal(filled.mean[~filled.missing], x[~filled.missing])


def test_a_run_opens_with_its_own_data_and_with_others(tmp_path: Path) -> None:
    small = {"data": {"source": "iris"}, "training": {"epochs": 1, "batch_size": 32}}
    hidden = {"model": {"decoder": {"hidden": [4]}}, "inference": {"encoder": {"hidden": [4]}}}
    run_recipe(resolve([small, hidden]), tmp_path / "run", progress=False, ledger=False)
    own = open_run(tmp_path / "run")
    assert own.x.shape == (150, 4)
    assert own.data.labels is not None
    held_out = open_run(tmp_path / "run", held_out=True)
    assert held_out.x.shape == (30, 4)
    training_mean = (own.x.sum(0) - held_out.x.sum(0)) / 120
    np.testing.assert_allclose(training_mean, 0, atol=1e-5)  # the scaling is that of the training rows
    np.savetxt(tmp_path / "x.csv", np.arange(20.0).reshape(5, 4) ** 1.5, delimiter=",")
    assert open_run(str(tmp_path / "run"), str(tmp_path / "x.csv")).x.shape == (5, 4)
    with pytest.raises(DataError, match=r"wine has 13 columns, the model of .*run has 4"):
        open_run(tmp_path / "run", "wine")
    with pytest.raises(RunError, match="there is no such run"):
        open_run(tmp_path / "nothing")
