"""Where minibatches come from: every row once, rows with what belongs to them, the same order again, few at a time."""

import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import probvae
from probvae.data import RowsOnDisk
from probvae.errors import ArgumentError, DataError, ShapeError
from probvae.inference import DiagonalGuide, ELBOObjective, Guide, MLPEncoder, bound, fit
from probvae.inference.objectives.base import StepLoss
from probvae.inference.training.dataset_rows import labels_of
from probvae.inference.training.minibatches import DiskMinibatches, Minibatches
from probvae.inference.training.training_data import TensorRows, as_rows
from probvae.models import (
    BernoulliLikelihood,
    Covariates,
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    PoissonLikelihood,
    StandardNormalPrior,
    covariates_for,
)

DIM = 3


def numbered(num: int) -> torch.Tensor:
    """Rows that say which they are."""
    return torch.arange(num * DIM, dtype=torch.float32).reshape(num, DIM)


def mapped(x: torch.Tensor, folder: Path, dtype: type = np.float32) -> np.ndarray:
    np.save(folder / "x.npy", x.numpy().astype(dtype))
    return np.load(folder / "x.npy", mmap_mode="r")


class Items(Dataset):
    """Pairs of an image (1, DIM) and a label; not a tensor."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.x[row].unsqueeze(0), row % 2


class ManyItems(Items):
    """With a way to fetch many at once, and only that."""

    def __getitems__(self, rows: list[int]) -> list:
        return [super(ManyItems, self).__getitem__(row) for row in rows]

    def __getitem__(self, row: int) -> None:
        raise AssertionError("asked for one item, where many can be had")


def on_disk(num: int, batch_size: int, folder: Path) -> Minibatches:
    """Runs of 4 rows, 3 of them a pool: an epoch of 50 rows has five pools."""
    rows = RowsOnDisk(mapped(numbered(num), folder))
    return DiskMinibatches(rows, batch_size, torch.float32, run=4, runs_a_pool=3)


MAKERS: dict[str, Callable[[int, int, Path], Minibatches]] = {
    "memory": lambda num, batch_size, folder: TensorRows(numbered(num)).minibatches(batch_size),
    "disk": on_disk,
    "dataset": lambda num, batch_size, folder: as_rows(Items(numbered(num)), torch.float32).minibatches(batch_size),
    "many": lambda num, batch_size, folder: as_rows(ManyItems(numbered(num)), torch.float32).minibatches(batch_size),
}
each_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@each_kind
@pytest.mark.parametrize(("num", "batch_size"), [(50, 16), (48, 16), (50, 50), (1, 1), (7, 1), (50, 20)])
def test_every_row_once_an_epoch_with_its_number(make, num: int, batch_size: int, tmp_path: Path) -> None:
    minibatches, x = make(num, batch_size, tmp_path), numbered(num)
    orders = []
    for _ in range(2):
        batches = [(index.clone(), rows.clone()) for index, rows in minibatches.epoch()]
        assert [len(rows) for _, rows in batches[:-1]] == [batch_size] * (math.ceil(num / batch_size) - 1)
        assert all(torch.equal(rows, x[index]) for index, rows in batches)
        orders.append(torch.cat([index for index, _ in batches]))
        assert torch.equal(orders[-1].sort().values, torch.arange(num))
    assert num < 7 or not torch.equal(*orders)


@each_kind
def test_same_seed_same_order(make, tmp_path: Path) -> None:
    def order(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return [place for _ in range(2) for batch in minibatches.epoch() for place in batch.index.tolist()]

    minibatches = make(50, 16, tmp_path)
    assert order(3) == order(3) != order(4)


@each_kind
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4])
def test_restored_minibatches_go_on(make, taken: int, tmp_path: Path) -> None:
    """In the middle of the second epoch; the caller's generator is where it was when the state was taken."""
    minibatches = make(50, 16, tmp_path)
    list(minibatches.epoch())
    running = minibatches.epoch()
    for _ in range(taken):
        next(running)
    state, generator = minibatches.state(), torch.get_rng_state()
    expected = [batch.index.tolist() for epoch in (running, minibatches.epoch()) for batch in epoch]
    torch.save(state, tmp_path / "state.pt")
    again = make(50, 16, tmp_path)
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.set_rng_state(generator)
    assert [batch.index.tolist() for _ in range(2) for batch in again.epoch()] == expected


def test_order_in_memory_is_torchs_permutation() -> None:
    """What it has been before rows could stay on the disk, so a seed gives the fit that it gave."""
    torch.manual_seed(5)
    expected = torch.randperm(50)
    torch.manual_seed(5)
    assert torch.equal(torch.cat([index for index, _ in TensorRows(numbered(50)).minibatches(16).epoch()]), expected)


def test_an_epoch_takes_no_new_memory() -> None:
    minibatches = TensorRows(numbered(50)).minibatches(16)
    first, second = ([rows.data_ptr() for _, rows in minibatches.epoch()] for _ in range(2))
    assert first == second


def test_rows_of_a_run_are_spread_over_their_pool_only(tmp_path: Path) -> None:
    """What block shuffling gives and does not give: neighbours stay within a pool, and are shuffled there."""
    minibatches = on_disk(1200, 12, tmp_path)
    place = torch.empty(1200, dtype=torch.int64)
    place[torch.cat([index for index, _ in minibatches.epoch()])] = torch.arange(1200)
    runs = place.reshape(-1, 4)
    assert ((runs // 12) == (runs // 12)[:, :1]).all()
    within = (runs % 12).sort(dim=1).values
    assert not torch.equal(within, runs % 12)
    pools = (runs[:, 0] // 12).double()
    # a random order of 300 runs: no correlation with the order in the file
    assert abs(np.corrcoef(pools.numpy(), np.arange(300))[0, 1]) < 5 / math.sqrt(300)


def reading_threads() -> int:
    return sum(thread.name.startswith("probvae-minibatches") for thread in threading.enumerate())


def test_reading_ahead_ends_with_the_epoch_or_when_it_is_closed(tmp_path: Path) -> None:
    minibatches = on_disk(50, 5, tmp_path)
    running = minibatches.epoch()
    next(running)
    assert reading_threads() == 1
    minibatches.close()
    assert reading_threads() == 0
    list(minibatches.epoch())
    assert reading_threads() == 0


def test_an_error_of_the_reading_thread_reaches_the_caller(tmp_path: Path) -> None:
    def refuse(x: np.ndarray) -> np.ndarray:
        if (x == 99).any():
            raise OSError("the disk is gone")
        return x

    rows = RowsOnDisk(mapped(numbered(50), tmp_path)).then(refuse)
    minibatches = DiskMinibatches(rows, 5, torch.float32, run=2, runs_a_pool=2)
    with pytest.raises(OSError, match="the disk is gone"):
        list(minibatches.epoch())
    assert reading_threads() == 0


def vae(likelihood=None, covariates: Covariates | None = None) -> probvae.VAE:
    torch.manual_seed(1)
    extra = covariates.num_covariates if covariates else 0
    likelihood = likelihood or GaussianLikelihood(DIM, variance="optimal")
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2 + extra, DIM), likelihood, covariates)
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM + extra, hidden=(5,)), 2))


def quiet(pair: probvae.VAE, x: object, **options: object) -> probvae.FitResult:
    return fit(pair, x, **{"epochs": 2, "batch_size": 20, "progress": False, **options})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, folder: x.numpy(),
        lambda x, folder: mapped(x, folder),
        lambda x, folder: TensorDataset(x, torch.zeros(len(x))),
        lambda x, folder: Subset(TensorDataset(torch.cat([x, x])), range(len(x))),
        lambda x, folder: Items(x),
    ],
)
def test_the_same_data_in_another_form_give_the_same_bits(wrap, tmp_path: Path) -> None:
    x, one, other = torch.randn(110, DIM), vae(), vae()
    first, second = quiet(one, x), quiet(other, wrap(x, tmp_path))
    assert [r["elbo"] for r in first.history] == [r["elbo"] for r in second.history]
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("binarization", ["none", "fresh"])
def test_a_fit_to_rows_on_disk(binarization: str, tmp_path: Path) -> None:
    """Validation share, optimal c and evaluation, as good as in memory, and the same again with the same seed."""
    fresh = binarization == "fresh"
    x = torch.rand(400, DIM).square() if fresh else torch.randn(400, 1) + 0.3 * torch.randn(400, DIM)
    likelihood = BernoulliLikelihood(DIM) if fresh else None
    options = {
        "epochs": 30,
        "validation": 0.2,
        "patience": 30,
        "binarization": binarization,
        "learning_rate": 3e-2,
        "schedule": "cosine",
    }
    rows = RowsOnDisk(mapped(x, tmp_path))
    pairs = [vae(likelihood) for _ in range(3)]
    first, again, _ = (quiet(pair, data, **options).history for pair, data in zip(pairs, (rows, rows, x), strict=True))
    for key in ("elbo", "validation_elbo", "variance"):
        assert [record[key] for record in first] == [record[key] for record in again]
    x = torch.bernoulli(x) if fresh else x
    disk, memory = (bound(pair, x, 20).elbo for pair in pairs[1:])
    assert abs(disk.mean() - memory.mean()) < 5 * memory.std() / math.sqrt(len(x))
    assert disk.mean() > bound(vae(likelihood), x, 20).elbo.mean() + 0.1
    assert all(torch.isfinite(p).all() for p in pairs[0].parameters())
    assert reading_threads() == 0


class Stopped(Exception):
    pass


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
def test_the_thread_ends_when_a_fit_is_broken_off(error: type[BaseException], tmp_path: Path) -> None:
    pair, calls = vae(), []

    def stop(*_: object) -> None:
        calls.append(reading_threads())
        if len(calls) > 4:
            raise error

    pair.guide.register_forward_hook(stop)
    with pytest.raises(error):
        quiet(pair, RowsOnDisk(mapped(torch.randn(400, DIM), tmp_path)))
    assert max(calls) == 1
    assert reading_threads() == 0


class Watching(ELBOObjective):
    """Looks at what is given for each row: its first number is the row's own."""

    def step_loss(self, model: LatentModel, guide: Guide, x: torch.Tensor, kl_weight: float = 1.0) -> StepLoss:
        number = x[:, 0]
        assert torch.equal(model.likelihood.exposure[:, 0], number + 1)
        assert torch.equal(model.decoder.y.argmax(1), number.long() % 2)
        return super().step_loss(model, guide, x, kl_weight)


@pytest.mark.parametrize("validation", [None, 0.2])
@pytest.mark.parametrize("form", ["tensor", "disk", "pairs"])
def test_labels_and_exposure_stay_with_their_rows(form: str, validation: float | None, tmp_path: Path) -> None:
    x = torch.arange(150.0).unsqueeze(1).expand(-1, DIM).contiguous()
    labels = torch.arange(150) % 2
    data = {"tensor": x, "disk": RowsOnDisk(mapped(x, tmp_path)), "pairs": ManyItems(x)}[form]
    pair = vae(PoissonLikelihood(DIM), covariates_for(labels.numpy()))
    y = None if form == "pairs" else labels.numpy()
    quiet(pair, data, y=y, exposure=torch.arange(150.0) + 1, objective=Watching(), validation=validation)


def test_labels_of_a_dataset() -> None:
    assert labels_of(ManyItems(numbered(600))).tolist() == [row % 2 for row in range(600)]
    assert labels_of(Subset(TensorDataset(numbered(5), torch.arange(5)), [4, 1])).tolist() == [4, 1]
    assert labels_of(numbered(5)) is None
    with pytest.raises(DataError, match=r"items are x alone. Give items \(x, y\)"):
        labels_of(TensorDataset(numbered(5)))


def test_a_bad_row_of_a_late_block_is_the_callers(tmp_path: Path) -> None:
    x = numbered(1000)
    x[[700, 900], 1] = math.nan
    with pytest.raises(DataError, match=r"^x: 2 of 1000 rows contain NaN or infinity \(first: row 700\)"):
        quiet(vae(), Items(x))


class Endless(IterableDataset):
    def __iter__(self):
        yield from numbered(5)


class Words(Items):
    def __getitem__(self, row: int) -> str:
        return "word"


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (Endless(), ArgumentError, "x: an IterableDataset has no rows that could be shuffled"),
        (Words(numbered(50)), DataError, r"expected items x or \(x, y\)"),
        (np.zeros(5), ShapeError, r"x: expected shape \(N, D\)"),
        (np.array([["a"]]), DataError, "x: expected numbers"),
        ([[1.0]], ArgumentError, "x: expected a torch.Tensor, got list"),
        (Items(torch.randn(50, DIM + 1)), ShapeError, "x: expected 3 columns, got 4"),
    ],
)
def test_mistakes(x: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quiet(vae(), x)
