"""Work on several layers at a time, each on one thread.

Rounding is many small steps, which PyTorch does not divide among threads; and so that what a task
gives does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

import torch

T = TypeVar("T")
# Called now and then by a task: raises where it is not wanted any more.
Check = Callable[[], None]


def unchecked() -> None:
    """For work that nothing ends."""


def side_by_side(tasks: Sequence[Callable[[Check], T]], together: int) -> Iterator[tuple[int, T]]:
    """Carry out tasks, at most `together` at a time: the number and result of each as it ends.

    They are begun in their order. Where one raises, or whoever takes the results, the others end
    at their next check.
    """
    before, over = torch.get_num_threads(), Event()

    def check() -> None:
        if over.is_set():
            raise CancelledError

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(together, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            numbers: dict[Future[T], int] = {
                pool.submit(task, check): number for number, task in enumerate(tasks)
            }
            try:
                for done in as_completed(numbers):
                    yield numbers[done], done.result()
            finally:
                over.set()
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        torch.set_num_threads(before)
