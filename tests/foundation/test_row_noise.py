"""Random numbers of rows: equal for equal rows, whatever stands around them, and of the right distribution."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import VonMises

from probvae.foundation.row_noise import NoRowsError, RowNoise, row_keys

NUM_ROWS, NUM_DRAWS = 6, 20_000
Build = Callable[[Tensor], dist.TorchDistribution]


def wide(m: Tensor) -> Tensor:
    return m[:, None].expand(len(m), 2)


DISTRIBUTIONS: dict[str, Build] = {
    "normal": lambda m: dist.Normal(wide(m), 1.5).to_event(1),
    "multivariate normal": lambda m: dist.MultivariateNormal(wide(m), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "low rank": lambda m: dist.LowRankMultivariateNormal(wide(m), torch.ones(len(m), 2, 1), torch.ones(len(m), 2)),
    "student t": lambda m: dist.StudentT(9.0, wide(m), 1.0).to_event(1),
    "laplace": lambda m: dist.Laplace(wide(m), 1.0).to_event(1),
    "gamma": lambda m: dist.Gamma(wide(m).exp(), 1.0).to_event(1),
    "beta": lambda m: dist.Beta(wide(m).exp(), 2.0).to_event(1),
    "dirichlet": lambda m: dist.Dirichlet(m[:, None].exp().expand(len(m), 3)),
    "poisson": lambda m: dist.Poisson(3 * wide(m).exp()).to_event(1),
    "negative binomial": lambda m: dist.NegativeBinomial(3.0, logits=wide(m)).to_event(1),
    "binomial": lambda m: dist.Binomial(10, logits=wide(m)).to_event(1),
    "bernoulli": lambda m: dist.Bernoulli(logits=wide(m)).to_event(1),
    "exponential": lambda m: dist.Exponential(wide(m).exp()).to_event(1),
    "uniform": lambda m: dist.Uniform(wide(m) - 3, 2.0).to_event(1),
    "continuous bernoulli": lambda m: dist.ContinuousBernoulli(logits=wide(m)).to_event(1),
    "mixture": lambda m: dist.MixtureSameFamily(
        dist.Categorical(logits=m[:, None] * torch.arange(3.0)),
        dist.Normal(m[:, None, None] + torch.arange(3.0)[:, None].expand(len(m), 3, 2), 0.3).to_event(1),
    ),
}


@pytest.fixture(scope="module")
def keys() -> Tensor:
    return row_keys(torch.arange(3.0 * NUM_ROWS).reshape(NUM_ROWS, 3).sin())


def drawn(build: Build, keys: Tensor, rows: Tensor, num_draws: int = NUM_DRAWS) -> Tensor:
    q = build(torch.linspace(-1, 1, NUM_ROWS)[rows])
    with RowNoise(keys[rows], seed=3):
        return q.sample(torch.Size((num_draws,)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_row_draws_the_same_among_any_others(name: str, keys: Tensor) -> None:
    everything = drawn(DISTRIBUTIONS[name], keys, torch.arange(NUM_ROWS), 50)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(drawn(DISTRIBUTIONS[name], keys, some, 50), everything[:, some], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_mean_and_the_variance(name: str, keys: Tensor) -> None:
    """Five standard errors, which sixteen distributions and twelve numbers each pass in all but one of 9,000 trials."""
    rows = torch.arange(NUM_ROWS)
    q, draws = DISTRIBUTIONS[name](torch.linspace(-1, 1, NUM_ROWS)), drawn(DISTRIBUTIONS[name], keys, rows).double()
    z = (draws.mean(0) - q.mean) / (q.variance / NUM_DRAWS).sqrt()
    assert z.abs().max() < 5
    fourth = (draws - draws.mean(0)).pow(4).mean(0) / q.variance.square() - 1
    ratio = (draws.var(0) / q.variance - 1) / (fourth / NUM_DRAWS).sqrt()
    assert ratio.abs().max() < 5


def test_categories_have_their_probabilities(keys: Tensor) -> None:
    """Also where rows stand behind another batch dimension, and before one of their own."""
    logits = torch.randn(3, NUM_ROWS, 2, 4)
    with RowNoise(keys, seed=1, row_dim=2, outer=3):
        codes = dist.Categorical(logits=logits).sample(torch.Size((NUM_DRAWS,)))
    shares = torch.stack([(codes == k).double().mean(0) for k in range(4)], dim=-1)
    probs = logits.softmax(-1).double()
    assert ((shares - probs) / (probs * (1 - probs) / NUM_DRAWS).sqrt()).abs().max() < 5
    some = torch.tensor([5, 2])
    with RowNoise(keys[some], seed=1, row_dim=2, outer=3):
        again = dist.Categorical(logits=logits[:, some]).sample(torch.Size((NUM_DRAWS,)))
    assert torch.equal(again, codes[:, :, some])


def test_streams_are_uniform_and_independent(keys: Tensor) -> None:
    with RowNoise(keys, seed=0):
        u, v = torch.rand(NUM_DRAWS, NUM_ROWS, 2), torch.rand(NUM_DRAWS, NUM_ROWS, 2)
    columns = torch.cat([u.flatten(1), v.flatten(1)], dim=1).double()
    p_values = [scipy.stats.kstest(column.numpy(), "uniform").pvalue for column in columns.T]
    assert min(p_values) > 1e-4
    correlation = torch.corrcoef(torch.cat([columns[1:], columns[:-1]], dim=1).T) - torch.eye(48)
    assert correlation.abs().max() < 5 / NUM_DRAWS**0.5


def test_blocks_of_draws_continue_each_other(keys: Tensor) -> None:
    build, rows = DISTRIBUTIONS["mixture"], torch.arange(NUM_ROWS)
    whole, q = drawn(build, keys, rows, 30), build(torch.linspace(-1, 1, NUM_ROWS))
    noise = RowNoise(keys, seed=3)
    parts = []
    for start in (0, 10, 20):
        with noise.starting_at(start):
            parts.append(q.sample(torch.Size((10,))))
    assert torch.equal(torch.cat(parts), whole)


def test_seed_dtype_and_content_decide() -> None:
    x = torch.tensor([[0.5, 0.25], [1.0, -0.0], [1.0, 0.0], [torch.nan, 3.0]])
    keys = row_keys(x)
    assert torch.equal(keys, row_keys(x.double()))
    assert keys[1] == keys[2]
    assert len(keys.unique()) == 3
    like = torch.zeros(4, 4, 2)
    first = RowNoise(keys, seed=0).normal(like)
    torch.testing.assert_close(first.double(), RowNoise(keys, seed=0).normal(like.double()), rtol=1e-6, atol=1e-7)
    assert not torch.equal(first, RowNoise(keys, seed=1).normal(like))
    assert not torch.equal(first, RowNoise(keys, seed=(0, 1)).normal(like))


def test_global_generators_stay_and_numbers_of_no_row_are_refused(keys: Tensor) -> None:
    before = torch.get_rng_state()
    with RowNoise(keys, seed=0):
        torch.randn(2, NUM_ROWS)
        dist.Gamma(torch.ones(2, NUM_ROWS), 1.0).sample()
        with pytest.raises(NoRowsError, match="6 rows in dimension 1"):
            torch.randn(4, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_angles_belong_to_rows_and_have_their_distribution() -> None:
    """torch draws again until all rows are accepted, and so one row's angle would depend on the others."""
    x = torch.randn(400, 2, dtype=torch.float64)
    keys, angle = row_keys(x), VonMises(x, x.exp())

    def drawn(rows: slice) -> tuple[Tensor, Tensor]:
        with RowNoise(keys[rows], seed=1):
            return VonMises(x[rows], x[rows].exp()).sample((50,)), torch.randn(50, len(x[rows]))

    every, after = drawn(slice(0, 400))
    for rows in (slice(0, 1), slice(7, 90)):
        own, own_after = drawn(rows)
        assert torch.equal(own, every[:, rows])
        assert torch.equal(own_after, after[:, rows])
    ratio = torch.special.i1(angle.concentration) / torch.special.i0(angle.concentration)
    for found, expected in (((every - x).cos(), ratio), ((every - x).sin(), torch.zeros(()))):
        error = (found.mean(0) - expected) / (found.std(0) / math.sqrt(50))
        assert abs(float(error.mean())) < 4 / math.sqrt(800)
    uniform = VonMises(torch.zeros(20_000), 1e-3)
    with RowNoise(torch.arange(20_000), seed=1):
        found = uniform.sample((1,))[0]
    assert scipy.stats.kstest(found.numpy(), scipy.stats.vonmises(1e-3).cdf).pvalue > 1e-3
    torch.manual_seed(0)
    before = VonMises(0.0, 1.0).sample((3,))
    torch.manual_seed(0)
    assert torch.equal(VonMises(0.0, 1.0).sample((3,)), before)


def test_integers_belong_to_rows_and_are_uniform(keys: Tensor) -> None:
    def draws(some: Tensor) -> list[Tensor]:
        with RowNoise(some, 5):
            return [
                torch.randint(3, (400, len(some), 2)),
                torch.randint(-2, 5, (400, len(some)), dtype=torch.int32),
                torch.randint_like(torch.zeros(400, len(some)), 2, 4),
            ]

    every, last = draws(keys), draws(keys[-1:])
    for found, own, low, high in zip(every, last, (0, -2, 2), (3, 5, 4), strict=True):
        assert torch.equal(found[:, -1:], own)
        assert (found.min().item(), found.max().item()) == (low, high - 1)
        share = (found == low).double().mean().item()
        expected = 1 / (high - low)
        assert abs(share - expected) < 5 * (expected * (1 - expected) / found.numel()) ** 0.5
    assert [found.dtype for found in every] == [torch.int64, torch.int32, torch.float32]
