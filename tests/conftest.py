"""Guards: every test is seeded, validation is on, and nothing global is left changed."""

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import filelock
import pyro
import pytest
import torch
from torch.distributions import Distribution

Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    # The tests' tensors are small: more threads save nothing, and cost fiftyfold where cores are shared.
    torch.set_num_threads(1)
    # A seed for a device that is not there waits for it, with the whole stack written out: a third of a millisecond
    # for each, and a list that only grows.
    for name in ("cuda", "xpu", "mtia"):
        device = getattr(torch, name, None)
        if device is not None and not device.is_available():
            device.manual_seed_all = _seed_no_device
    # No file of a test has to outlive the machine.
    os.fsync = _leave_to_the_system
    # Figures and graphs make many objects that live long: looking through them so often took a tenth of the time.
    gc.set_threshold(20_000, 10, 10)


def _seed_no_device(seed: int) -> None:
    """In the place of ``manual_seed_all``."""


def _leave_to_the_system(file: object) -> None:
    """In the place of ``os.fsync``."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays: a quarter of the time went into looking through it for garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Neighbouring tests go to one worker: a fixture that takes seconds is then made once, not once in each."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


def _globals() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "argument validation": Distribution._validate_args,
        "Pyro's validation": pyro.infer.util.is_validation_enabled(),
        "parameter store": sorted(pyro.get_param_store().keys()),
    }


@pytest.fixture(autouse=True)
def guard() -> Iterator[None]:
    torch.manual_seed(0)
    assert Distribution._validate_args
    assert not pyro.get_param_store().keys()
    before = _globals()
    yield
    assert _globals() == before


@pytest.fixture
def double() -> Iterator[None]:
    """float64 for the modules that a test makes."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder that a function fills, once for all workers: the first that asks for the name, while the others wait."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, finished = shared / name, shared / f"{name}.finished"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                finished.touch()
        return folder

    return made
