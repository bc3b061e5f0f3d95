"""Evaluation in tiles: the numbers of the Pyro program, whatever the memory limit, within the limit."""

import copy
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.diagnostics.weights.importance import importance_diagnostic
from probvae.errors import ArgumentError
from probvae.foundation.onednn import fast_products
from probvae.foundation.operators import peak_bytes
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import ambient_seed
from probvae.inference import DiagonalGuide, FlowGuide, FullCovarianceGuide, MaskedEncoder, MLPEncoder, bound
from probvae.inference.densities.traces import log_weights
from probvae.inference.evaluation import memory
from probvae.inference.evaluation import row_tiles as evaluation
from probvae.inference.evaluation.memory import bytes_of_a_draw, current_limit, limited_memory
from probvae.inference.evaluation.row_tiles import draw_blocks, tiles
from probvae.inference.evaluation.threads import map_ordered
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.evidence.log_mean_errors import log_mean_error, summed
from probvae.inference.pair import VAE
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    MixturePrior,
    MLPDecoder,
    StandardNormalPrior,
)

DIM = 4
EXACT = {"rtol": 1e-12, "atol": 1e-12}
NAN = torch.nan
ROOT = Path(__file__).parents[3]


def spread(vae: probvae.VAE, dtype: torch.dtype = torch.float64) -> probvae.VAE:
    """The same with random weights, away from every default."""
    vae = vae.to(dtype)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return vae


def binary() -> tuple[VAE, torch.Tensor]:
    model = LatentModel(MixturePrior(2, 3), MLPDecoder(2, DIM, (5,)), BernoulliLikelihood(DIM))
    x = torch.rand(30, DIM, dtype=torch.float64).round()
    return spread(probvae.VAE(model, FullCovarianceGuide(MLPEncoder(DIM, (6,)), 2))), x


def flow() -> tuple[VAE, torch.Tensor]:
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, DIM, (5,)), GaussianLikelihood(DIM, "per-dimension"))
    x = torch.randn(30, DIM, dtype=torch.float64)
    return spread(probvae.VAE(model, FlowGuide(MLPEncoder(DIM, (6,)), 2))), x


def missing() -> tuple[VAE, torch.Tensor]:
    likelihood = GaussianLikelihood(DIM, variance=0.3)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, DIM, (5,)), likelihood, missing="mask")
    x = torch.randn(30, DIM, dtype=torch.float64)
    x[torch.rand_like(x) < 0.3] = NAN
    return spread(probvae.VAE(model, DiagonalGuide(MaskedEncoder(MLPEncoder(2 * DIM, (6,)), DIM), 2))), x


def conditional() -> tuple[VAE, torch.Tensor]:
    model = LatentModel(
        StandardNormalPrior(2), MLPDecoder(4, DIM, (5,)), GaussianLikelihood(DIM, 0.3), LabelCovariates(["cow", "dog"])
    )
    vae = spread(probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM + 2, (6,)), 2)))
    return vae.given(["cow", "dog", "dog"] * 10), torch.randn(30, DIM, dtype=torch.float64)


PAIRS = pytest.mark.parametrize("make", [binary, flow, missing, conditional])


@PAIRS
def test_terms_are_the_pyro_programs(make) -> None:
    """At the same random numbers, term by term, through Pyro's handlers and without them."""
    vae, x = make()
    with torch.no_grad():
        with RowNoise(row_keys(x), seed=5):
            expected = log_weights(vae.model, vae.guide, x, 7)
        ((_, terms),) = draw_blocks(vae, x, vae.guide.distribution(x), 7, seed=5)
    for name, value in expected._asdict().items():
        assert_close(getattr(terms, name), value, **EXACT)


@PAIRS
def test_estimates_are_made_of_these_weights(make) -> None:
    vae, x = make()
    torch.manual_seed(3)
    seed = ambient_seed()  # the number that bound() takes
    with torch.no_grad(), RowNoise(row_keys(x), seed):
        weights = log_weights(vae.model, vae.guide, x, 50)
    result = importance_log_evidence(vae, x, 50, seed=seed)
    log_w = weights.log_weight
    assert_close(result.log_evidence, torch.logsumexp(log_w, 0) - torch.tensor(50.0).double().log(), **EXACT)
    share = log_w.softmax(0)
    assert_close(result.ess, 1 / share.square().sum(0), **EXACT)
    assert_close(result.standard_error, log_mean_error(summed([log_w], 50)), rtol=1e-9, atol=1e-9)
    torch.manual_seed(3)
    parts = bound(vae, x, 50)
    assert_close(parts.elbo, log_w.mean(0), **EXACT)
    assert_close(parts.kl, (weights.log_guide - weights.log_prior).mean(0), **EXACT)


@PAIRS
def test_memory_limit_changes_no_random_number(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of several sizes are cut into pieces of several sizes; the numbers are the same."""
    whole_vae, whole_x = make()
    vae, x = whole_vae.at(slice(5)), whole_x[:5]
    monkeypatch.setattr(evaluation, "_FAST_BYTES_COUNTED", 37 * bytes_of_a_draw(vae, x))
    monkeypatch.setattr(evaluation, "_ROWS", 2)
    assert len(list(tiles(vae, x, 25))) == 3

    def numbers() -> list[torch.Tensor]:
        torch.manual_seed(1)
        sampled, diagnostic = importance_log_evidence(vae, x, 25), importance_diagnostic(vae, x, 25)
        return [*bound(vae, x, 25), *sampled, diagnostic.log_evidence, diagnostic.ess, diagnostic.pareto_k]

    whole = numbers()
    for num_draws in (1, 16, 33):
        with limited_memory(num_draws * bytes_of_a_draw(vae, x)):
            for value, expected in zip(numbers(), whole, strict=True):
                assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@PAIRS
def test_numbers_do_not_depend_on_the_number_of_threads(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks of several tiles, several at once."""
    vae, x = make()
    monkeypatch.setattr(evaluation, "_FAST_BYTES_COUNTED", 80 * bytes_of_a_draw(vae, x))
    monkeypatch.setattr(evaluation, "_ROWS", 8)
    used, terms = set(), evaluation.weight_terms

    def watched(*args):
        used.add((threading.current_thread().name, torch.get_num_threads()))
        return terms(*args)

    monkeypatch.setattr(evaluation, "weight_terms", watched)
    side_by_side = importance_log_evidence(vae, x, 160)
    assert {threads for _, threads in used} == {1}
    assert len(used) == torch.get_num_threads() == 3
    torch.set_num_threads(1)
    for value, expected in zip(side_by_side, importance_log_evidence(vae, x, 160), strict=True):
        assert_close(value, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("three_threads")
def test_what_fails_in_a_worker_fails_in_the_caller() -> None:
    jobs = ((number, [partial(divmod, 1, 2 - number)]) for number in range(20))
    with pytest.raises(ZeroDivisionError):
        list(map_ordered(jobs, 3))
    assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if "probvae" in thread.name]


def test_single_precision_differs_by_its_rounding() -> None:
    vae, x = binary()
    torch.manual_seed(1)
    single = spread(vae, torch.float32)
    whole = importance_log_evidence(single, x.float(), 500).log_evidence
    with limited_memory(40_000):
        parts = importance_log_evidence(single, x.float(), 500).log_evidence
    assert whole.dtype == torch.float32
    assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_limit_is_an_argument_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, terms = [], evaluation.weight_terms
    vae, x = binary()

    def watched(*args):
        seen.append(current_limit())
        return terms(*args)

    monkeypatch.setattr(evaluation, "weight_terms", watched)
    probvae.elbo(vae, x, memory_limit=10**6)
    log_evidence(vae, x, "importance", num_samples=3, memory_limit=2 * 10**6)
    with limited_memory(3 * 10**6):
        probvae.elbo(vae, x)
        probvae.elbo(vae, x, memory_limit=10**6)
    assert seen == [10**6, 2 * 10**6, 3 * 10**6, 10**6]
    assert current_limit() == memory.MEMORY_LIMIT


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_bad_limits(limit) -> None:
    vae, x = binary()
    with pytest.raises(ArgumentError, match="memory_limit: expected an integer >= 1"):
        probvae.elbo(vae, x, memory_limit=limit)


def test_weights_that_are_not_numbers_are_refused() -> None:
    vae, x = binary()
    with torch.no_grad():
        vae.model.decoder.network[0].weight.fill_(NAN)
    with pytest.raises(ValueError, match="logits"):
        importance_log_evidence(vae, x, 10)


class Broken(MLPDecoder):
    """No number beyond three standard deviations: one draw in 740."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z[..., :1] > 3, NAN, super().forward(z))


def test_one_weight_that_is_not_a_number_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever block it comes."""
    model = LatentModel(StandardNormalPrior(2), Broken(2, DIM, (5,)), BernoulliLikelihood(DIM))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM), 2))
    monkeypatch.setattr(evaluation, "_FAST_BYTES_COUNTED", 100 * bytes_of_a_draw(vae, torch.zeros(1, DIM)))
    with pytest.raises(ValueError, match="logits"):
        importance_log_evidence(vae, torch.zeros(1, DIM), 10_000)


@pytest.mark.parametrize("bias", [True, False])
def test_fast_products_are_single_precision(bias: bool) -> None:
    layer, x = torch.nn.Linear(300, 200, bias=bias), torch.randn(50, 30, 300)
    with torch.no_grad(), fast_products():
        fast, turned = layer(x), layer(x.transpose(0, 1))
    exact = layer.double()(x.double())
    assert fast.dtype == torch.float32
    assert_close(fast.double(), exact, rtol=0, atol=2e-6)
    assert_close(turned.double(), exact.transpose(0, 1), rtol=0, atol=2e-6)


def test_fast_products_leave_gradients_and_other_precisions_alone() -> None:
    layer, x = torch.nn.Linear(300, 200), torch.randn(1500, 300)
    with fast_products():
        assert layer(x).requires_grad
        with torch.no_grad():
            assert_close(layer.double()(x.double()), x.double() @ layer.weight.T + layer.bias, **EXACT)


PEAK = """
import os, torch, probvae
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from tests.support.memory import peak, reset_peak

torch.set_num_threads(1)
likelihood = probvae.models.BernoulliLikelihood(784)
model = probvae.LatentModel(probvae.StandardNormalPrior(20), probvae.MLPDecoder(20, 784, (8,)), likelihood)
vae = probvae.VAE(model, probvae.DiagonalGuide(probvae.MLPEncoder(784, (8,)), 20))
x = torch.rand(500, 784).round()
for limit, threads in {cases}:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    importance_log_evidence(vae, x[:2], 2)
    before = reset_peak()
    torch.set_num_threads(threads)
    importance_log_evidence(vae, x, 100, memory_limit=limit)
    print(peak() - before, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_memory_of_a_process_stays_within_the_limit() -> None:
    """50,000 draws of 784 numbers, 157 MB for each array of them; each limit in a process of its own."""
    cases = [(64 * 2**20, 1), (64 * 2**20, 4), (512 * 2**20, 4)]
    command = [sys.executable, "-c", PEAK.format(cases=cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    for (limit, _), used in zip(cases, done.stdout.splitlines(), strict=True):
        assert 2**20 < int(used) < limit


def test_memory_of_a_draw_is_counted() -> None:
    """Softplus of signed log-odds: three arrays of D numbers, where the layer before is narrow."""
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 1000, (2,)), BernoulliLikelihood(1000))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(1000, (6,)), 2))
    state = torch.get_rng_state()
    count = bytes_of_a_draw(vae, torch.zeros(5, 1000))
    assert 3 * 4000 <= count < 3.2 * 4000
    assert torch.equal(torch.get_rng_state(), state)
    # 300 components in 8 dimensions are more than 4 numbers of data
    model = LatentModel(MixturePrior(8, 300), MLPDecoder(8, DIM, (5,)), GaussianLikelihood(DIM))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, (6,)), 8))
    assert bytes_of_a_draw(vae, torch.zeros(5, DIM)) >= 300 * 8 * 4


def wide(num_hidden: int) -> MLPDecoder:
    """D numbers from 2, through ``num_hidden``."""
    torch.manual_seed(0)
    return MLPDecoder(2, DIM, (num_hidden,))


def test_a_limit_holds_for_a_decoder_that_was_swapped_in() -> None:
    """The memory of a draw belongs to the decoder at hand, not to the one at the first call."""
    vae = probvae.VAE(
        LatentModel(StandardNormalPrior(2), wide(4), GaussianLikelihood(DIM)), DiagonalGuide(MLPEncoder(DIM), 2)
    )
    x, limit = torch.randn(20, DIM), 2**20
    narrow = bytes_of_a_draw(vae, x)
    probvae.elbo(vae, x, 100)
    vae.model.decoder = wide(4096)
    assert bytes_of_a_draw(vae, x) > 20 * narrow

    def evaluate() -> None:
        with limited_memory(limit):
            assert sum(len(z) for z, _ in draw_blocks(vae, x, vae.guide.distribution(x), 100, seed=0)) == 100

    # all draws at once take 65 MB
    assert peak_bytes(evaluate) < 2 * limit


@pytest.mark.parametrize("attribute", ["num_copies", "function", "unknown"])
def test_the_memory_of_a_draw_follows_options_of_a_module(attribute: str) -> None:
    class Copies(MLPDecoder):
        """As many copies of its output as an attribute says, whatever the attribute is."""

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            number = {"num_copies": int, "function": lambda f: f(), "unknown": len}[attribute](self.option)
            return super().forward(z).unsqueeze(-1).repeat_interleave(number, -1).mean(-1)

    decoder = Copies(2, DIM, (5,))
    vae = probvae.VAE(
        LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(DIM)), DiagonalGuide(MLPEncoder(DIM), 2)
    )
    counts = []
    for number in (1, 1000, 1):
        decoder.option = {"num_copies": number, "function": lambda n=number: n, "unknown": set(range(number))}[
            attribute
        ]
        counts.append(bytes_of_a_draw(vae, torch.zeros(3, DIM)))
    assert counts[1] > 1000 * DIM * 4 > counts[0] == counts[2]


@pytest.mark.parametrize("make", [binary, flow])
def test_values_of_equal_weights_and_seeds_do_not_depend_on_history(make, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = make()
    monkeypatch.setattr(evaluation, "_FAST_BYTES_COUNTED", 50 * bytes_of_a_draw(vae, x))
    monkeypatch.setattr(evaluation, "_ROWS", 1)

    def value(pair: VAE) -> torch.Tensor:
        torch.manual_seed(3)
        return probvae.elbo(pair, x, 40)

    expected = value(vae)
    other = copy.deepcopy(vae)
    other.model.decoder = wide(700).double()
    value(other)
    torch.distributions.Distribution.set_default_validate_args(False)
    value(other)
    torch.distributions.Distribution.set_default_validate_args(True)
    other.model.decoder = copy.deepcopy(vae.model.decoder)
    assert torch.equal(value(other), expected)
    memory._counted.clear()
    assert torch.equal(value(other), expected)
