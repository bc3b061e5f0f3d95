"""Random numbers of a seed, and generators that are left as they were."""

import random
from collections.abc import Callable

import pytest
import torch

from probvae.foundation.seed import isolated_seed

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", [0, 3, 2**62, -1])
def test_numbers_are_those_of_the_seed(seed: int, device: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.randn(4), torch.randn(4, device=device)
    with isolated_seed(seed, device):
        found = torch.randn(4), torch.randn(4, device=device)
    assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_generators_are_left_as_they_were(device: str) -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), torch.rand(3, device=device), random.random()
    torch.manual_seed(5)
    random.seed(5)

    def draw_and_fail() -> None:
        with isolated_seed(1, device):
            torch.rand(7)
            torch.rand(7, device=device)
            random.random()
            with isolated_seed(2, device):
                torch.rand(2)
            raise KeyError

    with pytest.raises(KeyError):
        draw_and_fail()
    found = torch.rand(3), torch.rand(3, device=device), random.random()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[2] == expected[2]


def test_no_other_generator_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError

    names: list[tuple[object, str, Callable[..., None]]] = [
        (torch, "manual_seed", refused),
        (torch.cuda, "manual_seed_all", refused),
        (torch.cuda, "manual_seed", refused),
    ]
    for owner, name, instead in names:
        monkeypatch.setattr(owner, name, instead)
    with isolated_seed(1):
        torch.rand(1)
