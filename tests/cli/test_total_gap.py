"""`probvae gap`, `fit` and `compare` of guides whose family cannot be searched: the total, and why it is not split."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import probvae as package
from probvae.experiments.recipe_data import as_tensor, load_run_data, split
from probvae.inference import DiagonalGuide, Guide, exact_posterior
from tests.support.command_line import Run

FIT = ("fit", "--data", "linear-gaussian", "--num-data", "200", "--decoder", "linear", "--epochs", "2", "--no-figures")
WHY = "refine knows normal guides, and every LocalGuide whose draws are reparameterised; {} is neither"


@pytest.fixture
def nameless() -> Iterator[str]:
    """A diagonal guide as a mixture of the normal with itself: the same posterior, of a kind that is not searched."""
    name = "nameless-for-test"

    class NamelessGuide(DiagonalGuide, name=name):
        def distribution(self, x: Tensor) -> dist.TorchDistribution:
            normal = super().distribution(x)
            both = (part.unsqueeze(1).expand(-1, 2, -1) for part in (normal.mean, normal.stddev))
            weights = dist.Categorical(torch.ones(len(x), 2, dtype=x.dtype))
            return dist.MixtureSameFamily(weights, dist.Normal(*both).to_event(1))

    yield name
    Guide.registry.pop(name, None)


def test_exact_guide_of_a_mixture_prior_loses_nothing(probvae: Run, tmp_path: Path) -> None:
    fitted = probvae(*FIT, "--prior", "mixture", "--guide", "exact", "--out", "run", cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert "total: log p(x) - ELBO" in fitted.stdout
    assert "approximation" not in fitted.stdout
    done = probvae("gap", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    gap = json.loads(done.stdout)
    assert gap == json.loads((tmp_path / "run" / "gap.json").read_text())
    assert gap["num_data"] == 40
    assert gap["truth"] == "exact"
    assert gap["total"]["value"] == pytest.approx(0, abs=1e-5)
    assert gap["total"].keys() == {"value", "standard_error"}
    assert WHY.format("ExactGuide") in gap["not_split"]
    assert not {"approximation", "amortisation", "num_converged"} & gap.keys()


def test_total_of_a_guide_of_ones_own(probvae: Run, nameless: str, tmp_path: Path) -> None:
    """Against the closed form of the normal that it is; told in the table, compared with a guide that is searched."""
    for name, guide in (("normal", "diagonal"), ("run", nameless)):
        done = probvae(*FIT, "--guide", guide, "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    vae = package.load(tmp_path / "run")
    x = as_tensor(split(load_run_data(tmp_path / "run"), 0.2, 0)[1])
    with torch.no_grad():
        normal = DiagonalGuide.distribution(vae.guide, x)
        full = MultivariateNormal(normal.mean, scale_tril=torch.diag_embed(normal.stddev))
        expected = float(kl_divergence(full, exact_posterior(vae.model, x)).mean())
    table = probvae("gap", "run", cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    text = " ".join(table.stdout.split())
    assert "not split into family and encoder" in text
    assert "NamelessGuide is neither" in text
    gap = json.loads((tmp_path / "run" / "gap.json").read_text())
    assert expected > 0.05
    assert gap["total"]["value"] == pytest.approx(expected, rel=0.02)
    compared = probvae("compare", "normal", "run", "--out", "compared", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert json.loads((tmp_path / "compared" / "compare.json").read_text())["runs"][1]["gap"] == gap
