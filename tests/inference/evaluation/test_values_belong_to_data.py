"""What is computed for a datum does not depend on the other rows of the call, their order, or their number."""

from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

import probvae
from probvae import VAE, DiagonalGuide, GaussianLikelihood, LatentModel, MLPDecoder, MLPEncoder, StandardNormalPrior
from probvae.inference import Guide, bound, posterior_mean, posterior_scale, reconstruct
from probvae.inference.densities.moments import mean_and_variance

DIM, LATENT = 6, 3
# Guides whose q needs the model, or is made for given rows.
OTHERS = {"exact", "free", "constrained"}


def pair(guide: str = "diagonal", missing: str = "refuse") -> VAE:
    torch.manual_seed(5)
    model = LatentModel(
        StandardNormalPrior(LATENT),
        MLPDecoder(LATENT, DIM, hidden=(8,)),
        GaussianLikelihood(DIM, variance=0.3),
        missing=missing,
    )
    encoder = MLPEncoder(DIM, hidden=(8,))
    if missing == "mask":
        encoder = probvae.MaskedEncoder(MLPEncoder(2 * DIM, hidden=(8,)), DIM)
    options = {"model": model} if guide == "semi-amortized" else {}
    made = (
        Guide.registry[guide](encoder, latent_dim=LATENT, **options)
        if guide != "diagonal"
        else DiagonalGuide(encoder, LATENT)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return VAE(model, made).eval()


FUNCTIONS: dict[str, Callable[[VAE, Tensor], Tensor]] = {
    "elbo": lambda vae, x: probvae.elbo(vae, x, num_samples=16),
    "kl": lambda vae, x: bound(vae, x, num_samples=3).kl,
    "importance": lambda vae, x: probvae.log_evidence(vae, x, method="importance", num_samples=200).value,
    "pareto k": lambda vae, x: probvae.importance_diagnostic(vae, x, num_samples=200).pareto_k,
    "resample": lambda vae, x: probvae.resample(vae, x, 5, num_proposals=100).movedim(0, 1),
    "mean": posterior_mean,
    "scale": posterior_scale,
    "reconstruct": reconstruct,
}
SLOW_FUNCTIONS: dict[str, Callable[[VAE, Tensor], Tensor]] = {
    "annealed": lambda vae, x: probvae.log_evidence(vae, x, method="annealed").value,
    "refine": lambda vae, x: mean_and_variance(probvae.refine(vae, x).guide.distribution(x))[0],
    "gap": lambda vae, x: probvae.posterior_gap(vae, x, truth="importance", num_samples=50).amortisation.value,
}


def differences(function: Callable[[VAE, Tensor], Tensor], vae: VAE, x: Tensor) -> dict[str, float]:
    """The largest change of a datum's value, in float64, when the rows around it change."""

    def seeded(rows: Tensor) -> Tensor:
        torch.manual_seed(7)
        return torch.as_tensor(function(vae, rows)).detach()

    whole, order = seeded(x), torch.randperm(len(x))
    cases = {"permuted": order, "subset": torch.arange(2, 5), "single": torch.tensor([len(x) - 1])}
    return {name: float((seeded(x[rows]) - whole[rows]).abs().max()) for name, rows in cases.items()}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("guide", sorted(Guide.registry.keys() - OTHERS))
def test_values_belong_to_their_data(guide: str, function: str, double: None) -> None:
    found = differences(FUNCTIONS[function], pair(guide), torch.randn(9, DIM))
    assert max(found.values()) < 1e-10, found


@pytest.mark.parametrize("function", SLOW_FUNCTIONS)
@pytest.mark.parametrize("guide", ["diagonal", "full-covariance"])
def test_searches_and_chains_belong_to_their_data(guide: str, function: str, double: None) -> None:
    """A search amplifies the rounding of a matrix product of another height; a chain may do so where it refuses."""
    found = differences(SLOW_FUNCTIONS[function], pair(guide), torch.randn(6, DIM))
    assert max(found.values()) < 1e-6, found


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["mixture", "flow", "low-rank"])
def test_searches_of_other_families_belong_to_their_data(guide: str, double: None) -> None:
    found = differences(SLOW_FUNCTIONS["refine"], pair(guide), torch.randn(6, DIM))
    assert max(found.values()) < 1e-6, found


def test_imputed_entries_belong_to_their_data(double: None) -> None:
    x = torch.randn(9, DIM)
    x[torch.rand(9, DIM) < 0.3] = torch.nan
    for name in ("mean", "lower", "draws"):

        def imputed(vae: VAE, rows: Tensor, name: str = name) -> Tensor:
            return getattr(probvae.impute(vae, rows, num_draws=20), name).movedim(-2, 0)

        found = differences(imputed, pair(missing="mask"), x)
        assert max(found.values()) < 1e-10, (name, found)


def test_quadrature_belongs_to_its_data(double: None) -> None:
    torch.manual_seed(2)
    model = LatentModel(
        StandardNormalPrior(2),
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, DIM)),
        GaussianLikelihood(DIM, variance=0.1),
    )
    vae, x = VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(8,)), 2)), torch.randn(8, DIM)
    x[3] *= 5  # an outlier, whose neighbours keep their own box
    found = differences(lambda vae, rows: probvae.log_evidence(vae, rows, method="quadrature").value, vae, x)
    assert max(found.values()) < 1e-6, found


def test_values_of_a_program_belong_to_their_data(double: None) -> None:
    """Several sites, one of them with draws that torch makes row by row; a run of the program has all rows at once."""
    encoder = nn.Linear(4, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.Gamma(2.0 + a.square(), 1.0))
            pyro.sample("x", dist.Normal(torch.stack([a, b, a * b, a - b], -1), 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        h = encoder(x)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(h[:, 0], h[:, 1].exp()))
            pyro.sample("b", dist.Gamma(1.0 + h[:, 2].exp(), (h[:, 3] + 0 * a).exp()))

    x = torch.randn(9, 4)
    for function in ("elbo", "pareto k"):
        found = differences(FUNCTIONS[function], probvae.program_vae(model, guide, x), x)
        assert max(found.values()) < 1e-10, found
