r"""Data-parallel fits: one process for each share of every minibatch, started by ``torchrun``.

The ELBO of a minibatch is a mean over its n data, so with n_r of them on process r

.. math:: \nabla \mathcal L = \sum_r \frac{n_r}{n} \nabla \mathcal L_r,

one sum over processes between the gradient and the optimiser's step. It is taken of all gradients and the numbers to
report at once, in one flat tensor.
Source: Li et al. (2020), "PyTorch Distributed", arXiv:2006.15704.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from probvae.errors import ArgumentError, ConfigError, DataError, RankError
from probvae.foundation.fit_options import flat
from probvae.foundation.process import num_launched
from probvae.foundation.seed import ambient_seed
from probvae.inference.evaluation.row_tiles import tiles
from probvae.inference.objectives import Objective, StepLoss
from probvae.inference.pair import VAE
from probvae.inference.training.launch import join
from probvae.inference.training.minibatches import Rows
from probvae.inference.training.union_noise import Layouts, UnionNoise

# Longer than any process works by itself between two exchanges; a network that is down is noticed after that.
TIMEOUT = timedelta(minutes=5)
# Rows by which the processes make sure that they read the same data
_COMPARED = 256

T = TypeVar("T")


class Processes:
    """The processes that share a fit: all of torch's default process group, or this one alone.

    ``rank`` is this process's number and ``size`` how many there are. The first, rank 0, is the only one that writes.

    >>> processes = Processes()
    >>> processes.size, processes.is_writer, processes.my_slice(5)
    (1, True, slice(0, 5, None))
    """

    def __init__(self) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        self._flat: Tensor | None = None

    @property
    def is_writer(self) -> bool:
        """True in the one process that writes files, shows progress and draws pictures."""
        return self.rank == 0

    def my_slice(self, num_data: int) -> slice:
        """This process's rows of a minibatch: equal shares, the first ones larger by one row."""
        return slice(*(-(-rank * num_data // self.size) for rank in (self.rank, self.rank + 1)))

    def noise(self, num_data: int, layouts: Layouts | None) -> AbstractContextManager[object]:
        """Inside the block this process draws its rows' random numbers of a minibatch of ``num_data``.

        ``layouts`` say where the rows are; a process that is alone needs none.
        """
        rows = self.my_slice(num_data)
        return nullcontext() if layouts is None or rows.start == rows.stop else UnionNoise(num_data, rows, layouts)

    def reduce(
        self, step: StepLoss, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], weight: float
    ) -> tuple[StepLoss, Sequence[Tensor | None]]:
        """The whole minibatch's losses () and its gradients, each of its parameter's shape, from each process's own.

        ``weight`` is this process's n_r/n. The gradients stay what they are until the next call.
        """
        if self.size == 1:
            return step, gradients
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        numbers = torch.stack([value.detach() for value in step]).to(found[0])
        self._flat = torch.cat([*(gradient.flatten() for gradient in found), numbers], out=self._flat)
        *parts, numbers = self._add_up(self._flat.mul_(weight)).split([*(p.numel() for p in parameters), 3])
        return StepLoss(*numbers.clone()), [part.view_as(p) for p, part in zip(parameters, parts, strict=True)]

    def mean(self, value: Tensor, weight: float) -> Tensor:
        """The mean () over a minibatch from each process's ``value`` () and its ``weight`` n_r/n."""
        return value if self.size == 1 else self._add_up(value.detach() * weight)

    def sums(
        self,
        num: int,
        function: Callable[[VAE, Tensor], Tensor],
        parts: Iterable[tuple[VAE, Tensor]],
    ) -> list[float]:
        """The ``num`` sums of ``function`` over all rows (N, D) of ``parts``; it gives the sums (num,) over some rows.

        Its random numbers belong to the rows, and come from one seed of torch's generator a call.
        Numbers that torch's distributions refuse make the sums NaN: all processes have to come to know of them.
        """
        total: Tensor | None = None
        for whole in parts:
            total = whole[1].new_zeros(num, dtype=torch.float64) if total is None else total
            for pair, rows in tiles(*whole, num_samples=1):
                total += self._own_sums(function, pair, rows)
        assert total is not None
        sums: list[float] = self._add_up(total).tolist()
        return sums

    def _own_sums(self, function: Callable[[VAE, Tensor], Tensor], pair: VAE, rows: Tensor) -> Tensor | float:
        own = self.my_slice(len(rows))
        if own.start == own.stop:
            ambient_seed()  # the others take one, and all generators stay in step
            return 0.0
        try:
            return function(pair.at(own), rows[own])
        except ArgumentError:
            raise
        except ValueError:
            return math.nan

    def first_value(self, value: T | None) -> T | None:
        """The value of the first process that has one, as JSON can tell it."""
        return next((each for each in self._gathered(value) if each is not None), None)

    def broadcast(self, value: T) -> T:
        """The writer's value, as JSON can tell it, in all processes."""
        return self._gathered(value)[0]

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise :class:`~probvae.errors.ConfigError`, with what differs, unless all processes have the same settings.

        ``settings`` are plain data, or objects that are known by their text, by name.
        """
        first, *others = map(dict, map(flat, self._gathered(json.loads(json.dumps(settings, default=str)))))
        for rank, other in enumerate(others, start=1):
            pairs = {name: (first.get(name), other.get(name)) for name in {**first, **other}}
            told = [f"{name} {ours!r} and {theirs!r}" for name, (ours, theirs) in pairs.items() if ours != theirs]
            if told:
                raise ConfigError(
                    f"distributed: expected the same settings in all processes, got in ranks 0 and {rank}: "
                    f"{'; '.join(told)}. Start all of them with the same recipe and options."
                )

    def begin(self, state: Mapping[str, Tensor], x: Rows, objective: Objective, batch_size: int) -> None:
        """Give all processes the writer's weights (...), once it is known that they have the same data and model.

        ``state`` has tensors of any shape by name; ``x`` are the rows (N, D).
        """
        if self.size == 1:
            return
        _check_can_be_shared(objective, batch_size, self.size)
        names = [(name, list(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()]
        self.check_same((_fingerprint(x), names), DataError, "data and models", "Give all of them the same files.")
        with _exchange(self.rank):
            for tensor in state.values():
                dist.broadcast(tensor, 0)

    def end(self, state: Mapping[str, Tensor]) -> None:
        """Make sure that all processes have come to the same weights: ``state`` has tensors of any shape (...)."""
        if self.size > 1:
            weights = [_digest(tensor) for tensor in state.values()]
            self.check_same(weights, RankError, "weights", "Run on machines of one kind, or in one process.")

    def align_generators(self, device: torch.device) -> None:
        """Put the generators where the writer's are: draws by rejection may have let them part ways."""
        if self.size == 1:
            return
        states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
        with _exchange(self.rank):
            for state in states:
                dist.broadcast(state, 0)
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, device)

    def check_same(self, value: object, error: type[Exception], what: str, fix: str) -> None:
        """Raise ``error`` unless all processes have the same ``value``."""
        others = self._gathered(value)
        different = [rank for rank, other in enumerate(others) if other != others[0]]
        if different:
            raise error(f"distributed: expected the same {what} in all processes, rank {different[0]} differs. {fix}")

    def _gathered(self, value: T) -> list[T]:
        """Each process's value. They come as JSON: what torch itself would send runs code where it arrives."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _exchange(self.rank):
            lengths = [torch.empty(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(text)]))
            longest = max(int(length) for length in lengths)
            texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, F.pad(text, (0, longest - len(text))))
        return [json.loads(bytes(text[: int(n)].tolist())) for text, n in zip(texts, lengths, strict=True)]

    def _add_up(self, values: Tensor) -> Tensor:
        if self.size > 1:
            with _exchange(self.rank):
                dist.all_reduce(values)
        return values


@contextmanager
def process_group(timeout: timedelta = TIMEOUT) -> Iterator[Processes]:
    """The processes that ``torchrun`` started together with this one, joined inside the block.

    Without ``torchrun``, and where there is a process group already, nothing is joined. A process that is not heard of
    for ``timeout`` counts as lost. Raises what :func:`~probvae.inference.training.launch.join` raises.

    >>> with process_group() as processes:
    ...     processes.size
    1
    """
    if num_launched() == 1 or dist.is_initialized():
        yield Processes()
        return
    join(timeout)
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


@contextmanager
def _exchange(rank: int) -> Iterator[None]:
    """torch's errors about a connection become ours."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise RankError(
            f"distributed: rank {rank} lost the other processes ({reason}). One of them stopped or cannot be reached: "
            "see its message, and start all of them again."
        ) from error


def _check_can_be_shared(objective: Objective, batch_size: int, size: int) -> None:
    if batch_size < size:
        raise ArgumentError(
            f"batch_size: expected at least one datum for each of the {size} processes, got {batch_size}. Raise it."
        )
    if not objective.is_mean_over_data or objective.free_bits:
        name = "free_bits" if objective.is_mean_over_data else f"objective {objective.registered_name!r}"
        raise ArgumentError(
            f"{name}: expected a mean over the data, which processes can share; this one compares the data of a "
            "minibatch. Fit in one process, or use objective='elbo' without free_bits."
        )


def _fingerprint(x: Rows) -> tuple[object, ...]:
    """The size, the dtype, and the values of some rows."""
    return len(x), str(x.dtype), _digest(x.head(_COMPARED))


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()
