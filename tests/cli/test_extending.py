"""New components: one defined at run time, and those of an installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probvae.models import Prior

PRIOR = '''
import torch
from pyro import distributions as dist
from probvae.models import Prior


class GumbelPrior(Prior, name="{name}"):
    """Independent Gumbel dimensions, for this test."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self):
        return dist.Gumbel(self.loc, torch.ones_like(self.loc)).to_event(1)

    @classmethod
    def example(cls):
        return cls(latent_dim=2)
'''
FAMILIES = ("likelihood", "decoder", "encoder", "guide", "objective")
PARTS = "\n".join(
    [
        "from probvae.inference import ELBOObjective, DiagonalGuide, MLPEncoder",
        "from probvae.models import GaussianLikelihood, MLPDecoder",
        "def make(): ...",
        *(
            f"class {family.title()}OfAPackage({base}, name='{family}-of-a-package'):\n    'For this test.'"
            for family, base in zip(
                FAMILIES,
                ("GaussianLikelihood", "MLPDecoder", "MLPEncoder", "DiagonalGuide", "ELBOObjective"),
                strict=True,
            )
        ),
    ]
)
FIT = (
    "fit",
    "--epochs",
    "2",
    "--num-data",
    "120",
    "--hidden",
    "8",
    "--batch-size",
    "32",
    "--no-figures",
    "--no-progress",
)


@pytest.mark.usefixtures("unrefined")
def test_prior_defined_at_run_time_is_a_choice(probvae, tmp_path: Path) -> None:
    """One class and nothing else: the command line lists it, fits it, and loads it again."""
    try:
        exec(PRIOR.format(name="gumbel-for-test"), {})
        assert "gumbel-for-test" in probvae("list", "priors").stdout
        done = probvae(*FIT, "--prior", "gumbel-for-test", "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        assert probvae("sample", tmp_path / "run").returncode == 0
        nearly = probvae(*FIT, "--prior", "gumbel-for-tset", "--out", tmp_path / "other")
        assert "Did you mean 'gumbel-for-test'" in nearly.stderr
    finally:
        Prior.registry.pop("gumbel-for-test", None)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment with a package installed that offers two priors, one of which cannot be imported."""
    site = tmp_path / "site"
    (site / "moreprobvae-1.0.dist-info").mkdir(parents=True)
    (site / "moreprobvae.py").write_text(PRIOR.format(name="gumbel-of-a-package"))
    (site / "brokenprobvae.py").write_text("raise RuntimeError('it is broken')\n")
    (site / "moreprobvae-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: moreprobvae\nVersion: 1.0\n"
    )
    (site / "partsprobvae.py").write_text(PARTS)
    points = "[probvae.priors]\ngumbel-of-a-package = moreprobvae:GumbelPrior\nbroken = brokenprobvae:BrokenPrior\n"
    points += "taken = partsprobvae:make\n" + "".join(
        f"[probvae.{family}s]\n{family}-of-a-package = partsprobvae:{family.title()}OfAPackage\n" for family in FAMILIES
    )
    (site / "moreprobvae-1.0.dist-info" / "entry_points.txt").write_text(points)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "probvae", *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_prior_of_an_installed_package(installed: dict[str, str], tmp_path: Path) -> None:
    listed = run(installed, "list", "priors", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "gumbel-of-a-package" in listed.stdout
    assert "prior 'taken' of the package moreprobvae is no component" in listed.stderr
    assert "'broken' of the package moreprobvae cannot be loaded (RuntimeError: it is broken)" in listed.stderr.replace(
        "\n", " "
    )
    assert "cannot be loaded" not in run(installed, "--help", cwd=tmp_path).stderr


@pytest.mark.slow
def test_every_family_takes_plug_ins(installed: dict[str, str], tmp_path: Path) -> None:
    """All parts are from a package: fitted, saved and loaded again in another process."""
    chosen = [part for family in FAMILIES for part in (f"--{family}", f"{family}-of-a-package")]
    chosen += ["--prior", "gumbel-of-a-package"]
    done = run(installed, *FIT, *chosen, "--no-gap", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(installed, "sample", "run", cwd=tmp_path).returncode == 0
    without = {**installed, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    refused = run(without, "sample", "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "of-a-package'" in refused.stderr


def test_why_a_broken_plug_in_is_unknown(installed: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, *FIT, "--prior", "broken", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "'broken' of the package moreprobvae cannot be loaded" in done.stderr.replace("\n", " ")
    assert "unknown prior 'broken'" in done.stderr
