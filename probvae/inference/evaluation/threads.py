"""Independent parts of an evaluation side by side, each on one thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch

Name = TypeVar("Name")
Result = TypeVar("Result")


def map_ordered(
    jobs: Iterable[tuple[Name, Sequence[Callable[[], Result]]]], num_workers: int
) -> Iterator[tuple[Name, list[Result]]]:
    """Each job's name and what its parts gave, in the order of the jobs, which is also the one they are taken in.

    With several workers the parts run on as many threads, each of them with one thread of torch's, and some jobs are
    taken ahead: work that torch would spread operator by operator is spread once, and nobody waits for the slowest at
    each of them. Jobs are taken in the caller's thread, so that what they draw comes from one stream in one order.

    >>> jobs = ((n, [lambda n=n: n**2, lambda n=n: n**3]) for n in range(3))
    >>> list(map_ordered(jobs, num_workers=2))
    [(0, [0, 0]), (1, [1, 1]), (2, [4, 8])]
    """
    if num_workers < 2:
        for name, parts in jobs:
            yield name, [part() for part in parts]
        return
    ahead: deque[tuple[Name, list[Future[Result]]]] = deque()
    with _workers(num_workers) as pool:
        for name, parts in jobs:
            ahead.append((name, [pool.submit(part) for part in parts]))
            if len(ahead) > 2 * num_workers:
                yield _finished(*ahead.popleft())
        while ahead:
            yield _finished(*ahead.popleft())


def _finished(name: Name, parts: list[Future[Result]]) -> tuple[Name, list[Result]]:
    return name, [part.result() for part in parts]


@contextmanager
def _workers(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute on one core each, and the caller on one too.

    A team of threads beside the workers would wait for its turn at a core, and keep it busy with waiting: that took as
    much time as the work.
    """
    before, started = torch.get_num_threads(), Barrier(number)
    pool = ThreadPoolExecutor(number, thread_name_prefix="probvae", initializer=_use_one_core)
    try:
        for begun in [pool.submit(started.wait) for _ in range(number)]:
            begun.result()
        torch.set_num_threads(1)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread's first question sets its number to the process's
    torch.set_num_threads(1)
