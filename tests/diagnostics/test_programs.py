"""Models and guides written by hand in Pyro: the same numbers as a VAE's, or as the formula; what cannot be read."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import scipy.integrate
import scipy.stats
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae.diagnostics.program_diagnosis import program_vae
from probvae.diagnostics.weights.importance import importance_diagnostic
from probvae.errors import ArgumentError, ConfigError, DataError, ShapeError, SupportError
from probvae.inference import DiagonalGuide, ExactGuide, LinearEncoder
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.evidence.annealing import annealed_log_evidence
from tests.support import example_a

COVARIANCE = torch.linalg.inv(example_a.precision())


def model_a(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ example_a.W.T + example_a.B, example_a.C**0.5).to_event(1), obs=x)


def exact_mean(x: Tensor) -> Tensor:
    return (x - example_a.B) @ example_a.W / example_a.C @ COVARIANCE


def exact_guide(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.MultivariateNormal(exact_mean(x), COVARIANCE))


def diagonal_guide(x: Tensor, factor: float = 1.0) -> None:
    scale = factor * example_a.precision().diagonal() ** -0.5
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.Normal(exact_mean(x), scale).to_event(1))


def exact_guide_in_two_steps(x: Tensor) -> None:
    """q(z_1) q(z_2 | z_1), of which no distribution can be read off."""
    mean, s = exact_mean(x), COVARIANCE
    slope = s[0, 1] / s[0, 0]
    with pyro.plate("rows", x.shape[0]):
        first = pyro.sample("first", dist.Normal(mean[:, 0], s[0, 0].sqrt()))
        rest = (s[1, 1] - slope * s[0, 1]).sqrt()
        pyro.sample("second", dist.Normal(mean[:, 1] + slope * (first - mean[:, 0]), rest))


def model_in_two_steps(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        first = pyro.sample("first", dist.Normal(x.new_zeros(()), 1.0))
        second = pyro.sample("second", dist.Normal(x.new_zeros(()), 1.0))
        mean = torch.stack([first, second], -1) @ example_a.W.T + example_a.B
        # two observed sites, one of a vector and one of a number
        pyro.sample("left", dist.Normal(mean[:, :2], example_a.C**0.5).to_event(1), obs=x[:, :2])
        pyro.sample("right", dist.Normal(mean[:, 2], example_a.C**0.5), obs=x[:, 2])


PAIRS: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "one site": (model_a, exact_guide),
    "two sites": (model_in_two_steps, exact_guide_in_two_steps),
}


@pytest.fixture(params=PAIRS)
def exact(request: pytest.FixtureRequest) -> probvae.VAE:
    return program_vae(*PAIRS[request.param], example_a.X)


def test_densities_are_those_of_the_vae_at_arbitrary_z(exact: probvae.VAE) -> None:
    z = 3 * torch.randn(7, 2, 2, dtype=torch.float64)
    expected = example_a.model().log_joint(example_a.X, z)
    assert_close(exact.model.log_joint(example_a.X, z), expected, rtol=0, atol=1e-12)
    apart = exact.model.prior().log_prob(z) + exact.model.likelihood(exact.model.decoder(z)).log_prob(example_a.X)
    assert_close(apart, expected, rtol=0, atol=1e-12)
    log_q = dist.MultivariateNormal(exact_mean(example_a.X), COVARIANCE).log_prob(z)
    assert_close(exact.guide.distribution(example_a.X).log_prob(z), log_q, rtol=0, atol=1e-12)


def test_every_bound_of_an_exact_guide_is_the_evidence(exact: probvae.VAE) -> None:
    """The bound runs the programs inside plates and handlers of our own."""
    assert_close(probvae.elbo(exact, example_a.X, num_samples=3), example_a.LOG_P, rtol=0, atol=1e-10)
    for method in ("quadrature", "importance"):
        evidence = probvae.log_evidence(exact, example_a.X, method, num_samples=30)
        assert_close(evidence.value, example_a.LOG_P, rtol=0, atol=1e-5 if method == "quadrature" else 1e-9)
    annealed = annealed_log_evidence(exact, example_a.X, num_temperatures=20, num_chains=4)
    assert_close(annealed.log_evidence, example_a.LOG_P, rtol=0, atol=1e-9)
    assert importance_diagnostic(exact, example_a.X, 100).pareto_k.isneginf().all()


def test_simulated_pairs_have_the_moments_of_the_model(exact: probvae.VAE) -> None:
    num = 20_000
    pairs = simulate_pairs(exact, num)
    values = torch.cat([pairs.z, pairs.x], dim=1)
    loading = torch.cat([torch.eye(2, dtype=torch.float64), example_a.W])
    noise = torch.tensor([0.0, 0, 1, 1, 1], dtype=torch.float64) * example_a.C
    covariance = loading @ loading.T + torch.diag(noise)
    variance = covariance.diagonal()
    mean = torch.cat([torch.zeros(2, dtype=torch.float64), example_a.B])
    assert ((values.mean(0) - mean).abs() < 5 * (variance / num).sqrt()).all()
    error = ((variance[:, None] * variance + covariance**2) / num).sqrt()
    assert ((torch.cov(values.T) - covariance).abs() < 5 * error).all()
    assert_close(pairs.x - exact.model.likelihood(pairs.z).mean, pairs.x - pairs.z @ example_a.W.T - example_a.B)


def test_the_ledger_of_a_normal_guide_is_that_of_the_vae() -> None:
    result = probvae.posterior_gap(program_vae(model_a, diagonal_guide, example_a.X), example_a.X)
    assert result.converged.all()
    expected = torch.full((2,), 0.04580320226440815, dtype=torch.float64)
    for gap in (result.total, result.approximation):
        assert ((gap.value - expected).abs() < 5 * gap.standard_error + 1e-5).all()
    assert (result.amortisation.value.abs() < 3e-3).all()


def test_to_arviz_takes_it(exact: probvae.VAE) -> None:
    result = probvae.to_arviz(exact, example_a.X, num_samples=30)
    stats = result["sample_stats"]
    assert result["posterior"]["latent"].to_numpy().tolist() == exact.model.latent_names
    log_w = torch.from_numpy((stats["log_p"] - stats["log_q"]).to_numpy())
    assert_close(log_w, example_a.LOG_P.expand(1, 30, 2), rtol=0, atol=1e-9)


# A rate with a gamma prior, an angle in (-1, 1), and counts: constrained latents, discrete data.
def count_model(x: Tensor) -> None:
    with pyro.plate("data", x.shape[0]):
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(2.5), x.new_tensor(0.7)))
        tilt = pyro.sample("tilt", dist.Uniform(x.new_tensor(-1.0), x.new_tensor(1.0)))
        rates = rate.unsqueeze(-1) * torch.stack([1 + tilt, 1 - tilt], -1)
        pyro.sample("counts", dist.Poisson(rates).to_event(1), obs=x)


def count_guide(x: Tensor) -> None:
    total = x.sum(1)
    with pyro.plate("data", x.shape[0]):
        pyro.sample("rate", dist.LogNormal((total + 2).log() - 1, x.new_tensor(0.6)))
        inner = dist.Beta(x[:, 0] + 1, x[:, 1] + 1)
        pyro.sample("tilt", dist.TransformedDistribution(inner, dist.transforms.AffineTransform(-1.0, 2.0)))


COUNTS = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 6.0]], dtype=torch.float64)


def test_constrained_sites_are_seen_in_unconstrained_coordinates() -> None:
    vae = program_vae(count_model, count_guide, COUNTS)
    assert (vae.model.latent_dim, vae.model.data_dim, vae.model.likelihood.measure) == (2, 2, "probability")
    assert vae.model.latent_names == ["rate (unconstrained)", "tilt (unconstrained)"]
    z = torch.randn(5, 3, 2, dtype=torch.float64)
    rate, share = z[..., 0].exp(), z[..., 1].sigmoid()
    tilt = 2 * share - 1
    log_volume = z[..., 0] + (2 * share * (1 - share)).log()
    numbers = [value.numpy() for value in (rate, tilt)]
    log_prior = scipy.stats.gamma.logpdf(numbers[0], 2.5, scale=1 / 0.7) - math.log(2)
    rates = np.stack([numbers[0] * (1 + numbers[1]), numbers[0] * (1 - numbers[1])], -1)
    log_likelihood = scipy.stats.poisson.logpmf(COUNTS.numpy(), rates).sum(-1)
    expected = torch.from_numpy(log_prior + log_likelihood) + log_volume
    assert_close(vae.model.log_joint(COUNTS, z), expected, rtol=0, atol=1e-11)
    log_q = scipy.stats.lognorm.logpdf(numbers[0], 0.6, scale=(COUNTS.sum(1) + 2).numpy() / math.e)
    log_q += scipy.stats.beta.logpdf(share.numpy(), *(COUNTS + 1).T.numpy()) - math.log(2)
    assert_close(vae.guide.distribution(COUNTS).log_prob(z), torch.from_numpy(log_q) + log_volume, rtol=0, atol=1e-11)


def test_their_evidence_is_that_of_the_program() -> None:
    """By integration over the program's own coordinates."""
    vae = program_vae(count_model, count_guide, COUNTS)
    evidence = probvae.log_evidence(vae, COUNTS, "quadrature")
    for row, value in zip(COUNTS.numpy(), evidence.value.tolist(), strict=True):

        def density(tilt: float, rate: float, row: Any = row) -> float:
            log_p = scipy.stats.gamma.logpdf(rate, 2.5, scale=1 / 0.7) - math.log(2)
            log_p += scipy.stats.poisson.logpmf(row, [rate * (1 + tilt), rate * (1 - tilt)]).sum()
            return math.exp(log_p)

        expected = scipy.integrate.dblquad(density, 0, 40, -1, 1, epsabs=1e-9, epsrel=1e-6)[0]
        assert value == pytest.approx(math.log(expected), abs=2e-4)
    sampled = probvae.log_evidence(vae, COUNTS, "importance", num_samples=4000)
    assert ((sampled.value - evidence.value).abs() < 5 * sampled.standard_error + 1e-4).all()


class TutorialVAE(nn.Module):
    """As in Pyro's tutorial: methods as programs, images as data, networks announced by pyro.module."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 16))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 2), x.new_ones(x.shape[0], 2)).to_event(1))
            logits = self.decoder(z).reshape(-1, 1, 4, 4)
            pyro.sample("obs", dist.Bernoulli(logits=logits).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


def test_the_tutorials_program() -> None:
    program, images = TutorialVAE(), torch.rand(6, 1, 4, 4).round()
    vae = program_vae(program.model, program.guide, images)
    x, z = images.flatten(1), torch.randn(3, 6, 2)
    with torch.no_grad():
        log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        log_p += dist.Bernoulli(logits=program.decoder(z)).log_prob(x).sum(-1)
        assert_close(vae.model.log_joint(x, z), log_p)
        assert_close(vae.guide.distribution(x).mean, program.encoder(images)[:, :2])
    assert vae.model.latent_names == ["latent[0]", "latent[1]"]
    # what plans the memory must know how wide the networks are
    from probvae.inference.evaluation.memory import widest_layer

    assert widest_layer(vae.model) == 16
    assert probvae.elbo(vae, x).shape == (6,)
    assert probvae.log_evidence(vae, x).method == "quadrature"
    assert probvae.sample(vae, 9).x.shape == (9, 16)


def test_the_parameter_store_is_used_and_left_as_it_was() -> None:
    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(2).double(), constraint=dist.constraints.positive)
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("code", dist.Normal(exact_mean(x), scale).to_event(1))

    store = pyro.get_param_store()
    try:
        pyro.param("scale", torch.tensor([0.3, 0.4]).double(), constraint=dist.constraints.positive)
        pyro.param("another", torch.ones(3))
        before = {name: (value, value.clone()) for name, value in store.items()}
        vae = program_vae(model_a, guide, example_a.X)
        found = vae.guide.distribution(example_a.X).stddev
        assert_close(found, torch.tensor([[0.3, 0.4]] * 2).double())
        probvae.elbo(vae, example_a.X)
        assert sorted(store.keys()) == sorted(before)
        assert all(torch.equal(store[name], old) for name, (_, old) in before.items())
        store.clear()
        # the diagnosis goes on with what it has seen, and adds nothing
        assert_close(vae.guide.distribution(example_a.X).stddev, found)
        fresh = program_vae(model_a, guide, example_a.X)
        assert_close(fresh.guide.distribution(example_a.X).stddev, torch.ones(2, 2).double())
        assert not store.keys()
    finally:
        store.clear()


def subsampled(x: Tensor) -> None:
    with pyro.plate("rows", 1000, subsample=x):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        mean = pyro.deterministic("mean", z @ example_a.W.T + example_a.B, event_dim=1)
        pyro.sample("obs", dist.Normal(mean, example_a.C**0.5).to_event(1), obs=x)


@pytest.mark.parametrize("model", [poutine.scale(model_a, scale=0.1), subsampled], ids=["scale", "subsample"])
def test_weights_of_a_loss_are_no_part_of_the_model(model: Callable[[Tensor], None]) -> None:
    vae = program_vae(model, exact_guide, example_a.X)
    assert_close(probvae.log_evidence(vae, example_a.X, "importance").value, example_a.LOG_P, rtol=0, atol=1e-9)


def test_nothing_of_the_caller_changes() -> None:
    state = torch.get_rng_state()
    vae = program_vae(*PAIRS["two sites"], example_a.X)
    simulate_pairs(vae, 5)
    assert torch.equal(state, torch.get_rng_state())
    with poutine.trace() as trace, pyro.plate("rows", 4, dim=-1):
        vae.model.prior().sample()
    assert set(trace.trace.nodes) <= {"rows", "_INPUT", "_RETURN"}


def test_the_diagnosis_of_a_program_is_that_of_the_vae() -> None:
    """Number by number, from the same random numbers; only log p(x) comes by quadrature, not in closed form."""
    guide = DiagonalGuide(LinearEncoder(3), 2).double()
    example_a.set_affine_guide(guide, torch.diag(example_a.precision().diagonal() ** -0.5))
    own, options = probvae.VAE(example_a.model(), guide), {"quick": True, "num_simulations": 200, "num_draws": 100}
    x = probvae.sample(own, 40, seed=2).x
    one = probvae.diagnose(own, x, **options).summary()
    two = probvae.diagnose_program(model_a, diagonal_guide, x, **options).summary()
    for section in ("importance", "calibration", "latent_usage"):
        found, expected = numbers_of(two[section]), numbers_of(one[section])
        # of a linear model the theory is known, which a program does not show
        assert {path: expected[path] for path in found} == pytest.approx(found, rel=1e-6, abs=1e-8)
        assert len(found) > 5
    total, expected = two["gap"]["total"], one["gap"]["total"]
    assert abs(total["value"] - expected["value"]) < 5 * total["standard_error"]


def numbers_of(summary: Any, path: str = "") -> dict[str, float]:
    """All numbers of plain data, by where they stand."""
    if isinstance(summary, int | float):
        return {path: float(summary)}
    entries = summary.items() if isinstance(summary, dict) else enumerate(summary if isinstance(summary, list) else [])
    return {key: value for name, entry in entries for key, value in numbers_of(entry, f"{path}/{name}").items()}


def test_an_exact_program_is_perfect_and_a_narrow_one_is_not() -> None:
    x = probvae.sample(probvae.VAE(example_a.model(), ExactGuide(example_a.model())), 60, seed=2).x
    options = {"quick": True, "num_simulations": 300}
    diagnosis = probvae.diagnose_program(model_a, exact_guide, x, **options)
    assert diagnosis.status == "ok", diagnosis
    narrow = probvae.diagnose_program(model_a, partial(diagonal_guide, factor=0.7), x, **options)
    failed = {verdict.name for verdict in narrow.verdicts if verdict.status == "fail"}
    assert {"calibration/central_coverage", "calibration/hpd_coverage", "calibration/spread"} <= failed


def test_it_cannot_be_saved(tmp_path: Any) -> None:
    with pytest.raises(ConfigError):
        program_vae(model_a, exact_guide, example_a.X).save(tmp_path / "file.safetensors")


def no_plate(x: Tensor) -> None:
    z = pyro.sample("code", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
    pyro.sample("obs", dist.Normal(z @ example_a.W.T, 1.0).to_event(1), obs=x)


def global_site(x: Tensor) -> None:
    scale = pyro.sample("scale", dist.LogNormal(x.new_tensor(0.0), 1.0))
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ example_a.W.T, scale).to_event(1), obs=x)


def global_guide(x: Tensor) -> None:
    pyro.sample("scale", dist.LogNormal(x.new_tensor(0.0), 1.0))
    exact_guide(x)


def sequential(x: Tensor) -> None:
    for n in pyro.plate("rows", x.shape[0]):
        z = pyro.sample(f"code_{n}", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample(f"obs_{n}", dist.Normal(z @ example_a.W.T, 1.0).to_event(1), obs=x[n])


def sequential_guide(x: Tensor) -> None:
    for n in pyro.plate("rows", x.shape[0]):
        pyro.sample(f"code_{n}", dist.Normal(exact_mean(x[n]), 1.0).to_event(1))


def discrete(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        k = pyro.sample("code", dist.Bernoulli(x.new_tensor(0.5)))
        pyro.sample("obs", dist.Normal(k.unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)


def discrete_guide(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.Bernoulli(x.new_tensor(0.5)))


def nested_plates(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", 3, dim=-1):
        z = pyro.sample("code", dist.Normal(x.new_tensor(0.0), 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=x)


def nested_guide(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", 3, dim=-1):
        pyro.sample("code", dist.Normal(x, 1.0))


def fixed_size(x: Tensor) -> None:
    with pyro.plate("rows", 2):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ example_a.W.T, 1.0).to_event(1), obs=x)


def other_names(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(exact_mean(x), 1.0).to_event(1))


def observes_nothing(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))


def observes_another(x: Tensor) -> None:
    model_a(2 * x)


def with_factor(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.factor("fit", -(x - z @ example_a.W.T).square().sum(-1))


def prior_reads_x(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(x[:, :2], 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ example_a.W.T, 1.0).to_event(1), obs=x)


def decoder_reads_x(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ example_a.W.T + x.roll(1, 1), 1.0).to_event(1), obs=x)


def with_dropout(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("code", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        mean = nn.functional.dropout(z @ example_a.W.T, 0.5, training=True)
        pyro.sample("obs", dist.Normal(mean, 1.0).to_event(1), obs=x)


def batch_normalised(x: Tensor) -> None:
    centred = exact_mean(x)
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.Normal(centred - centred.mean(0), 1.0).to_event(1))


def single_precision(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("code", dist.Normal(nn.Linear(3, 2)(x), 1.0).to_event(1))


BAD = [
    (no_plate, exact_guide, r"model: .*got site 'code' outside of one.*pyro.plate\('data', x.shape\[0\]\)"),
    (global_site, global_guide, "model: .*site 'scale' outside of one .one value for all data.*must be a parameter"),
    (sequential, sequential_guide, "site 'code_0' stands in a sequential plate. Use `with pyro.plate"),
    (discrete, discrete_guide, r"discrete site 'code' \(Bernoulli\)\. Sum it out"),
    (nested_plates, nested_guide, r"got 'rows' of size 2 at dim -2, 'columns' of size 3 at dim -1.*to_event\(1\)"),
    (fixed_size, exact_guide, r"'code' in one plate of size 1, the number of data.*'rows' of size 2"),
    (model_a, other_names, r"guide: expected the model's latent sites \['code'\], got \['z'\]. Draw each of them"),
    (observes_nothing, exact_guide, "model: expected a site that observes x, got none. Give obs="),
    (observes_another, exact_guide, "the columns of x, from left to right, as their values, got others. Observe x"),
    (with_factor, exact_guide, "site 'fit' is a pyro.factor, which cannot be drawn from"),
    (prior_reads_x, exact_guide, r"model: expected one p\(z\) for all data, got one that depends on x"),
    (decoder_reads_x, exact_guide, r"model: expected p\(x\|z\) to depend on z only, got one that reads x"),
    (with_dropout, exact_guide, r"model: expected the density of a datum to be the same at every run.*\.eval"),
    (model_a, batch_normalised, "guide: expected the density of a datum to be the same at every run and among"),
    (model_a, single_precision, r"guide: it failed for x of shape .* \(RuntimeError: .*weights the type of x"),
]


@pytest.mark.parametrize(("model", "guide", "message"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_read(model: Any, guide: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        program_vae(model, guide, example_a.X)


def test_bad_data() -> None:
    with pytest.raises(ArgumentError, match=r"x: expected a tensor .N, ....*unsqueeze"):
        program_vae(model_a, exact_guide, torch.zeros(5))
    with pytest.raises(ArgumentError, match="got list"):
        program_vae(model_a, exact_guide, [[1.0, 2.0]])
    with pytest.raises(DataError, match="NaN"):
        program_vae(model_a, exact_guide, torch.full((2, 3), torch.nan))
    vae = program_vae(count_model, count_guide, COUNTS)
    with pytest.raises(SupportError, match="outside the support of site 'counts'"):
        probvae.elbo(vae, -COUNTS)
    with pytest.raises(ShapeError, match="expected 2 columns"):
        probvae.elbo(vae, COUNTS[:, :1])
