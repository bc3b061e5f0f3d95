"""The rows of one process have the random numbers that they would have in the whole minibatch."""

from collections.abc import Callable
from copy import copy

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Exponential, Gamma, Laplace, Normal, Uniform, VonMises

from probvae.errors import ArgumentError
from probvae.inference import DiagonalGuide, FullCovarianceGuide, Guide, MixtureGuide, MLPEncoder, Objective
from probvae.inference.compiled.recording import record
from probvae.inference.training.union_noise import UnionNoise, find_layouts
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior

NUM_DATA, ROWS = 12, slice(5, 12)


def noise(draw: Callable[..., object], rows: slice = ROWS, num_particles: int = 1) -> UnionNoise:
    """The noise of ``rows``, for a program that draws as ``draw`` does."""

    def run(num_rows: int, num_particles: int) -> object:
        return draw(slice(0, num_rows), *([num_particles] if num_particles > 1 else []))

    with torch.random.fork_rng():
        return UnionNoise(NUM_DATA, rows, find_layouts(run, num_particles))


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


def same_noise(
    draw: Callable[..., Tensor], rows: slice = ROWS, num_particles: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows among all, and drawn for themselves; and a number drawn after each."""
    torch.manual_seed(1)
    whole, after_whole = draw(slice(0, NUM_DATA)), torch.rand(())
    torch.manual_seed(1)
    with noise(draw, rows, num_particles):
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
        lambda rows, k=7: Normal(probabilities()[rows], 1.0).rsample((k,)).movedim(0, 1),
        lambda rows, k=7: Categorical(probabilities()[rows]).expand((k, rows.stop - rows.start)).sample().T,
        lambda rows, k=7: Categorical(probabilities()[rows]).sample((k,)).T,
        lambda rows, k=7: torch.randn(k * (rows.stop - rows.start)).view(k, -1).T,
    ):
        whole, own, after_whole, after = same_noise(draw, num_particles=7)  # as many as the process has rows
        assert torch.equal(whole, own)
        assert torch.equal(after_whole, after)


def test_numbers_of_no_datum_are_left() -> None:
    torch.manual_seed(1)
    expected = torch.randn(4, 2)
    torch.manual_seed(1)
    with noise(lambda rows: torch.randn(4, 2)):
        assert torch.equal(torch.randn(4, 2), expected)


def test_a_draw_of_unknown_length_is_for_each_row_anew() -> None:
    """Gamma draws reject: the processes part ways, but none repeats another's numbers."""
    draws = []
    for rows in (slice(0, 6), slice(6, 12)):
        torch.manual_seed(1)
        with noise(lambda rows: Gamma(torch.full((rows.stop - rows.start,), 2.0), 1.0).sample(), rows):
            draws.append(Gamma(torch.full((6,), 2.0), 1.0).sample())
    assert not set(draws[0].tolist()) & set(draws[1].tolist())


def objectives() -> list[Objective]:
    """All that processes can share, with one, few, and as many particles as a process has rows."""
    shared = [kind for kind in Objective.registry.values() if kind.is_mean_over_data]
    return [kind(num_particles=number) for kind in shared for number in (1, 3, SHARE)]


SHARE = 6
GUIDES: dict[str, Callable[[int], Guide]] = {
    "diagonal": lambda d: DiagonalGuide(MLPEncoder(SHARE, hidden=(SHARE,), dropout=0.3), d),
    "full": lambda d: FullCovarianceGuide(MLPEncoder(SHARE, hidden=(SHARE,)), d),
    "mixture": lambda d: MixtureGuide(MLPEncoder(SHARE, hidden=(SHARE,)), d, num_components=SHARE),
}


@pytest.mark.parametrize("latent_dim", [2, SHARE])
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("objective", objectives(), ids=lambda o: f"{o.registered_name}-{o.num_particles}")
def test_losses_of_the_parts_make_that_of_the_whole(
    objective: Objective, guide: str, latent_dim: int, double: None
) -> None:
    """Particles, latents, layers and components are as many as the rows of a process."""
    decoder = MLPDecoder(latent_dim, SHARE, hidden=(SHARE, 5), dropout=0.3)
    model = LatentModel(StandardNormalPrior(latent_dim), decoder, GaussianLikelihood(SHARE))
    q, x = GUIDES[guide](latent_dim), torch.rand(NUM_DATA, SHARE)

    def loss(x: Tensor, objective: Objective = objective) -> Tensor:
        return objective.step_loss(model, q, (torch.rand_like(x) < x).double()).loss

    def run(num_rows: int, num_particles: int) -> object:
        tried = copy(objective)
        tried.num_particles = num_particles
        return loss(x[:num_rows], tried)

    if guide == "mixture" and objective.registered_name == "analytic-kl":
        with pytest.raises(ArgumentError, match="closed form"):
            loss(x)
        return
    layouts = find_layouts(run, objective.num_particles)
    torch.manual_seed(1)
    whole, parts = loss(x), []
    for rows in (slice(0, SHARE), slice(SHARE, NUM_DATA), slice(0, 5), slice(5, 11), slice(11, NUM_DATA)):
        torch.manual_seed(1)
        with UnionNoise(NUM_DATA, rows, layouts):
            parts.append(len(x[rows]) * loss(x[rows]))
    torch.testing.assert_close(sum(parts[:2]) / NUM_DATA, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sum(parts[2:]) / NUM_DATA, whole, rtol=1e-12, atol=1e-12)


def test_draws_by_a_loop_of_unknown_length() -> None:
    """Each process draws again where one of its own rows was rejected: equal in distribution, and no error."""

    def draw(rows: slice) -> Tensor:
        return VonMises(torch.zeros(rows.stop - rows.start, 3), 2.0).sample()

    torch.manual_seed(0)
    for _ in range(20):
        with noise(draw):
            assert draw(ROWS).shape == (7, 3)


def test_rows_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^distributed: expected random numbers that belong to one datum each"):
        find_layouts(lambda n, k: torch.randn(n, n), 1)
    with pytest.raises(ArgumentError, match=r"^distributed: expected random numbers that belong to one datum each"):
        find_layouts(lambda n, k: torch.randn(n + 1), 1)
    with pytest.raises(ArgumentError, match=r"^distributed: expected the same random operators for all"):
        find_layouts(lambda n, k: torch.randn(n) if n == 2 else torch.rand(n), 1)
    with (
        noise(lambda rows: torch.randn(rows.stop - rows.start)),
        pytest.raises(ArgumentError, match=r"^distributed: expected random numbers in an order"),
    ):
        torch.rand(7)


def test_traced_graph_draws_the_same() -> None:
    def plain(x: Tensor) -> Tensor:
        return x + Normal(x, 0.5, validate_args=False).rsample() + torch.randn_like(x)

    layouts = find_layouts(lambda n, k: plain(torch.zeros(n, 3)), 1)

    def draw(x: Tensor) -> Tensor:
        with UnionNoise(NUM_DATA, ROWS, layouts):
            return plain(x)

    x = torch.zeros(7, 3)
    graph = record(lambda x: [draw(x)], [x], []).function()
    torch.manual_seed(1)
    expected = draw(x)
    torch.manual_seed(1)
    assert torch.equal(graph(x)[0], expected)
