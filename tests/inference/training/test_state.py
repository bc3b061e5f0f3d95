"""A fit's state: saved and loaded it is the same, and what is no state of this fit is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import probvae
from probvae.errors import RunError
from probvae.inference import FitOptions
from probvae.inference.objectives import ELBOObjective
from probvae.inference.training.loop import Loop
from probvae.inference.training.state import FitState, SavedState, StateListener
from probvae.inference.training.training_data import check_and_split

OPTIONS = FitOptions(epochs=3, batch_size=16, compile=False)


def loop_of(listener: StateListener | None = None) -> Loop:
    torch.manual_seed(1)
    vae, x = probvae.VAE.example(), torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    data = check_and_split(vae, vae, x, OPTIONS, x.device)
    return Loop(vae, data, ELBOObjective(), OPTIONS, listener=listener)


class Saving(StateListener):
    """Keeps a copy of the state in the middle of the second epoch."""

    saved: SavedState | None = None

    def after_step(self, state: FitState) -> None:
        if state.epoch == 1 and self.saved is None:
            found = state.state_dict()
            copies = (
                {name: tensor.clone() for name, tensor in part.items()} for part in (found.weights, found.tensors)
            )
            weights, tensors = copies
            self.saved = found._replace(weights=weights, tensors=tensors)


class Loading(StateListener):
    def __init__(self, saved: SavedState) -> None:
        self.saved = saved

    def begin(self, state: FitState, reason: str) -> None:
        state.load_state_dict(self.saved)


@pytest.fixture(scope="module")
def whole() -> tuple[Loop, SavedState]:
    listener = Saving()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        (loop := loop_of(listener)).run()
    assert listener.saved is not None
    return loop, listener.saved


def test_a_loaded_state_goes_on_bit_for_bit(whole: tuple[Loop, SavedState]) -> None:
    loop, saved = whole
    assert (saved.epoch, saved.batch) == (1, 1)
    again = loop_of(Loading(saved))
    result = again.run()
    assert all(torch.equal(tensor, again.vae.state_dict()[name]) for name, tensor in loop.vae.state_dict().items())
    assert again.state.lines == loop.state.lines
    assert [record["epoch"] for record in result.history] == [1, 2, 3]
    assert again.state.step == loop.state.step == 9


def test_loading_what_was_saved_changes_nothing(whole: tuple[Loop, SavedState]) -> None:
    saved = whole[1]
    with torch.random.fork_rng():
        (state := loop_of().state).load_state_dict(saved)
        found = state.state_dict()
    assert found[:2] == saved[:2]
    assert {**found.scalars, "path": ""} == {**saved.scalars, "path": ""}
    for ours, theirs in zip(found[2:4], saved[2:4], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def tensors(name: str, value: Tensor | None) -> Callable[[SavedState], SavedState]:
    """One tensor replaced, or taken out."""

    def change(saved: SavedState) -> SavedState:
        changed = {other: tensor for other, tensor in saved.tensors.items() if other != name}
        return saved._replace(tensors=changed if value is None else {**changed, name: value})

    return change


def scalars(name: str, value: Any) -> Callable[[SavedState], SavedState]:
    return lambda saved: saved._replace(scalars={**saved.scalars, name: value})


BAD: dict[str, tuple[Callable[[SavedState], SavedState], str]] = {
    "weights": (lambda saved: saved._replace(weights={}), "weights: expected the tensors of this fit, got no"),
    "more weights": (
        lambda saved: saved._replace(weights={**saved.weights, "zzz": torch.zeros(1)}),
        "weights: expected the tensors of this fit, got a 'zzz'",
    ),
    "moments": (tensors("optimizer.first_moment.0", torch.zeros(1)), "optimizer: expected 'first_moment.0' of shape"),
    "dtype": (tensors("optimizer.step.0", torch.zeros((), dtype=torch.int64)), "optimizer: .* got .* torch.int64"),
    "no generator": (tensors("random.cpu", None), "random: expected 'cpu' of shape"),
    "another generator": (tensors("random.cpu", torch.zeros(5056, dtype=torch.uint8)), "random: expected the state of"),
    "order": (tensors("order", torch.zeros(40, dtype=torch.int64)), "order: expected an order of 40 rows"),
    "short order": (tensors("order", torch.arange(39)), "order: expected an order of 40 rows"),
    "no history": (tensors("history.lines", None), "history: expected tensors lines and seconds"),
    "history of floats": (tensors("history.lines", torch.zeros(3)), "history: expected bytes"),
    "history of noise": (tensors("history.lines", torch.tensor([255], dtype=torch.uint8)), "history: expected a line"),
    "shorter history": (tensors("history.seconds", torch.zeros(0, dtype=torch.float64)), "expected 0 records, got 1"),
    "step": (scalars("step", "nine"), "step: expected int, got 'nine'"),
    "flag": (scalars("best_epoch", True), "best_epoch: expected int, got True"),
    "totals": (scalars("totals", [1.0]), "totals: expected four numbers"),
    "skipped": (scalars("skipped", {"total": 1, "rows": [[1]]}), "skipped: expected counts"),
    "best": (scalars("best", "high"), "best: expected int or float or NoneType, got 'high'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_state_of_this_fit_is_refused_by_name(whole: tuple[Loop, SavedState], case: str) -> None:
    change, message = BAD[case]
    with torch.random.fork_rng(), pytest.raises(RunError, match=message):
        loop_of().state.load_state_dict(change(whole[1]))
