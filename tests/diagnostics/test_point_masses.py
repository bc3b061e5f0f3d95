"""A guide without a density is refused by name, and a gap below zero is a fault."""

from typing import Any, Self

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import probvae
from probvae.diagnostics.diagnose import diagnose
from probvae.diagnostics.ledger.gap import Gap, total_gap_verdict
from probvae.diagnostics.ledger.unsplit import total_gap
from probvae.errors import ArgumentError
from probvae.inference import Guide
from probvae.inference.densities.point_mass import check_draws_have_density, point_mass_in
from probvae.inference.evidence.log_evidence import Estimate
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior

NORMAL = dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)
DELTA = dist.Delta(torch.zeros(5, 2)).to_event(1)


class Nameless(dist.TorchDistribution):
    """A point mass that does not say so."""

    support = dist.constraints.real_vector
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc.expand(*sample_shape, *self.loc.shape)

    rsample = sample

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros(value.shape[:-1])


class TooDense(dist.Laplace):
    """A distribution whose density integrates to more than one."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 3.0


class Given(Guide):
    """The guide with q_x = ``make(mean of x)``."""

    def __init__(self, make: Any) -> None:
        super().__init__(1)
        self.make = make

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return self.make(x.mean(-1, keepdim=True))

    @classmethod
    def example(cls) -> Self:
        return cls(dist.Delta)


def given_vae(make: Any) -> probvae.VAE:
    torch.manual_seed(3)
    return probvae.VAE(LatentModel(StandardNormalPrior(1), LinearDecoder(1, 3), GaussianLikelihood(3)), Given(make))


DOUBLE = dist.transforms.AffineTransform(0.0, 2.0)
WITHOUT = {
    "delta": lambda m: dist.Delta(m, event_dim=1),
    "independent": lambda m: dist.Delta(m).to_event(1),
    "masked": lambda m: dist.Delta(m).to_event(1).mask(True),
    "transformed": lambda m: dist.TransformedDistribution(dist.Delta(m).to_event(1), [DOUBLE]),
    "mixture": lambda m: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(len(m), 2)), dist.Delta(m.unsqueeze(1).expand(-1, 2, -1)).to_event(1)
    ),
    "discrete": lambda m: dist.Poisson(m.exp()).to_event(1),
}


@pytest.mark.parametrize("make", WITHOUT.values(), ids=WITHOUT)
def test_guides_without_a_density_are_refused_by_everything(make: Any) -> None:
    vae, x = given_vae(make), torch.randn(30, 3)
    calls = (
        lambda: diagnose(vae, x, quick=True),
        lambda: probvae.elbo(vae, x),
        lambda: total_gap(vae, x, "no reason"),
        lambda: probvae.diagnostics.importance_diagnostic(vae, x),
        lambda: probvae.diagnostics.calibration(vae),
        lambda: probvae.diagnostics.latent_usage(vae, x),
        lambda: probvae.log_evidence(vae, x, "importance"),
    )
    for call in calls:
        with pytest.raises(ArgumentError, match=r"guide: expected a q_x\(z\) with a density.*(Delta|Poisson)"):
            call()


def test_a_point_mass_of_the_users_own_is_seen_by_its_draws() -> None:
    with pytest.raises(ArgumentError, match=r"density.*all 8 draws of z_1 are the same.*dist.Delta"):
        diagnose(given_vae(Nameless), torch.randn(30, 3), quick=True)
    for q in (NORMAL, dist.Normal(torch.full((5, 2), 1e8), 1e-3).to_event(1)):  # narrower than the spacing of floats
        check_draws_have_density(q)
    assert point_mass_in(NORMAL) is None


def test_programs_name_the_site() -> None:
    def model(x: Tensor, z: Any = NORMAL) -> None:
        with pyro.plate("data", len(x)):
            value = pyro.sample("code", z if z is not NORMAL else dist.Normal(x.new_zeros(len(x), 1), 1).to_event(1))
            pyro.sample("x", dist.Normal(value @ x.new_ones(1, 3), 0.7).to_event(1), obs=x)

    def delta(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("code", dist.Delta(x.mean(-1, keepdim=True)).to_event(1))

    def normal(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("code", dist.Normal(x.mean(-1, keepdim=True), 1).to_event(1))

    def fixed(x: Tensor) -> None:
        model(x, dist.Delta(x.new_zeros(len(x), 1)).to_event(1))

    x = torch.randn(40, 3)
    with pytest.raises(ArgumentError, match=r"guide, site 'code': .*density.*Delta"):
        probvae.program_vae(model, delta, x)
    with pytest.raises(ArgumentError, match=r"model, site 'code': .*density.*Delta"):
        probvae.program_vae(fixed, normal, x)
    assert probvae.program_vae(model, normal, x).model.latent_dim == 1


def test_a_bound_above_the_evidence_is_a_fault_and_says_so() -> None:
    vae = given_vae(lambda m: TooDense(m, 1.0).to_event(1))
    x = 0.1 * torch.randn(40, 3)
    verdict = {v.name: v for v in diagnose(vae, x, quick=True).verdicts}["gap/total"]
    assert (verdict.status, verdict.threshold) == ("fail", 0.0)
    assert verdict.value < -0.5
    assert "above log p(x), which no bound can: a log density is wrong" in verdict.message


@pytest.mark.parametrize(
    ("gap", "error", "kind", "status"),
    [
        (-0.4, 0.01, "lower bound", "fail"),
        (-0.04, 0.01, "lower bound", "warn"),
        (-0.04, 0.01, "exact", "fail"),
        (-0.04, 0.2, "exact", "ok"),
        (-1e-9, 0.0, "exact", "ok"),
    ],
)
def test_gaps_below_zero(gap: float, error: float, kind: str, status: str) -> None:
    values, errors = torch.full((10,), gap).double(), torch.full((10,), error).double()
    verdict = total_gap_verdict(Gap(values, errors), Estimate(values, errors, "annealed", kind))  # type: ignore[arg-type]
    assert verdict.status == status
    assert ("above log p(x)" in verdict.message) is (status != "ok")
