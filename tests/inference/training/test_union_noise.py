"""The rows of one process have the random numbers that they would have in the whole minibatch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Exponential, Gamma, Laplace, Normal, Uniform
from torch.fx.experimental.proxy_tensor import make_fx

from probvae.inference import FullCovarianceGuide, MixtureGuide, MLPEncoder, Objective
from probvae.inference.training.processes import UnionNoise
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior

NUM_DATA, ROWS = 12, slice(5, 12)


def probabilities(num_data: int = NUM_DATA) -> Tensor:
    return torch.rand(num_data, 3, generator=torch.Generator().manual_seed(3))


DRAWS: dict[str, Callable[[slice], Tensor]] = {
    "randn": lambda rows: torch.randn(rows.stop - rows.start, 3),
    "rand": lambda rows: torch.rand(rows.stop - rows.start),
    "randn_like": lambda rows: torch.randn_like(probabilities()[rows]),
    "normal": lambda rows: torch.normal(probabilities()[rows], 2 * probabilities()[rows]),
    "in place": lambda rows: torch.empty(rows.stop - rows.start, 3).normal_(1.0, 2.0),
    "bernoulli": lambda rows: torch.bernoulli(probabilities()[rows]),
    "dropout": lambda rows: torch.nn.functional.dropout(probabilities()[rows], 0.4),
    "Normal": lambda rows: Normal(probabilities()[rows], 0.3).rsample(),
    "Uniform": lambda rows: Uniform(0.0, 1 + probabilities()[rows]).rsample(),
    "Laplace": lambda rows: Laplace(probabilities()[rows], 0.3).rsample(),
    "Exponential": lambda rows: Exponential(probabilities()[rows]).rsample(),
    "Categorical": lambda rows: Categorical(probabilities()[rows]).sample(),
}


def same_noise(draw: Callable[[slice], Tensor], rows: slice = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows among all, and drawn for themselves; and a number drawn after each."""
    torch.manual_seed(1)
    whole, after_whole = draw(slice(0, NUM_DATA)), torch.rand(())
    torch.manual_seed(1)
    with UnionNoise(NUM_DATA, rows):
        own = draw(rows)
    return whole[rows], own, after_whole, torch.rand(())


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("rows", [slice(0, 5), slice(5, 12), slice(11, 12)], ids=str)
def test_rows_have_their_own_numbers(name: str, rows: slice) -> None:
    whole, own, after_whole, after = same_noise(DRAWS[name], rows)
    assert torch.equal(whole, own)
    assert torch.equal(after_whole, after)


def test_several_draws_a_datum() -> None:
    for draw in (
        lambda rows: Normal(probabilities()[rows], 1.0).rsample((4,)).movedim(0, 1),
        lambda rows: Categorical(probabilities()[rows]).expand((4, rows.stop - rows.start)).sample().T,
    ):
        whole, own, after_whole, after = same_noise(draw)
        assert torch.equal(whole, own)
        assert torch.equal(after_whole, after)


def test_numbers_of_no_datum_are_left() -> None:
    torch.manual_seed(1)
    expected = torch.randn(4, 2)
    torch.manual_seed(1)
    with UnionNoise(NUM_DATA, ROWS):
        assert torch.equal(torch.randn(4, 2), expected)


def test_a_draw_of_unknown_length_is_for_each_row_anew() -> None:
    """Gamma draws reject: the processes part ways, but none repeats another's numbers."""
    draws = []
    for rows in (slice(0, 6), slice(6, 12)):
        torch.manual_seed(1)
        with UnionNoise(NUM_DATA, rows):
            draws.append(Gamma(torch.full((6,), 2.0), 1.0).sample())
    assert not set(draws[0].tolist()) & set(draws[1].tolist())


@pytest.mark.parametrize(
    ("family", "objective"), [(FullCovarianceGuide, "elbo"), (FullCovarianceGuide, "iwae"), (MixtureGuide, "elbo")]
)
def test_losses_of_the_parts_make_that_of_the_whole(family: type, objective: str, double: None) -> None:
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 4, hidden=(6,), dropout=0.3), GaussianLikelihood(4))
    guide = family(MLPEncoder(4, hidden=(6,)), 2)
    x, bound = torch.randn(NUM_DATA, 4), Objective.named(objective)(num_particles=3)
    torch.manual_seed(1)
    whole, parts = bound.step_loss(model, guide, x).loss, []
    for rows in (slice(0, 5), slice(5, 12)):
        torch.manual_seed(1)
        with UnionNoise(NUM_DATA, rows):
            parts.append(len(x[rows]) * bound.step_loss(model, guide, x[rows]).loss)
    torch.testing.assert_close(sum(parts) / NUM_DATA, whole, rtol=1e-12, atol=1e-12)


def test_traced_graph_draws_the_same() -> None:
    def draw(x: Tensor) -> Tensor:
        with UnionNoise(NUM_DATA, ROWS):
            return x + Normal(x, 0.5, validate_args=False).rsample() + torch.randn_like(x)

    x = torch.zeros(7, 3)
    graph = make_fx(draw)(x)
    torch.manual_seed(1)
    expected = draw(x)
    torch.manual_seed(1)
    assert torch.equal(graph(x), expected)
