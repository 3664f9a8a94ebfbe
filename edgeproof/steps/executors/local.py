"""Processes on this machine, as many at a time as its cores and its memory take.

With one of them, the steps are done one after the other in the order that they are given in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from edgeproof.steps.children import Children
from edgeproof.steps.executors.executor import Begun, Ended, Event
from edgeproof.steps.graph import Given
from edgeproof.steps.machine import where
from edgeproof.steps.step import Step
from edgeproof.steps.store import Store
from edgeproof.steps.work import Outcome, Work, not_begun, perform


class LocalExecutor:
    """At most so many `workers`, on so many `cores` and so much memory; None: unknown.

    A step that needs more than there is has all of it. Steps that need a GPU are done one at a
    time, since all take the first one.
    """

    def __init__(self, store: Store, workers: int, cores: int, memory_mb: int | None) -> None:
        self._store = store
        self._workers, self._cores, self._memory = workers, cores, memory_mb

    def run(
        self, steps: Sequence[Step], given: Sequence[Given] = ()
    ) -> Generator[Event, None, None]:
        """Do them; threads wait for their processes, which read what is given where it lies."""
        children, files = Children(), {item.key: item.files for item in given}

        work = Work(self._store, children, files, {step.key: step for step in steps})

        with ThreadPoolExecutor(self._workers) as pool:
            try:
                yield from self._run(
                    steps, lambda step, ended: pool.submit(perform, step, work, ended)
                )
            finally:
                children.end()

    def _run(
        self,
        steps: Sequence[Step],
        begin: Callable[[Step, Mapping[str, Outcome]], Future[Outcome]],
    ) -> Generator[Event, None, None]:
        waiting, known = list(steps), {step.key for step in steps}
        ended: dict[str, Outcome] = {}
        running: dict[Future[Outcome], Step] = {}
        here = where()
        while waiting or running:
            for step in tuple(waiting):  # in their order: what rests on one of these comes later
                cause = _cause(step, ended)
                if cause is not None:
                    waiting.remove(step)
                    ended[step.key] = not_begun(step, cause)
                    yield Ended(step, ended[step.key])
            while following := self._next(waiting, ended, known, list(running.values())):
                waiting.remove(following)
                running[begin(following, dict(ended))] = following
                yield Begun(following, here)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                ended[step.key] = future.result()
                yield Ended(step, ended[step.key])

    def _next(
        self,
        waiting: Sequence[Step],
        ended: dict[str, Outcome],
        known: set[str],
        running: Sequence[Step],
    ) -> Step | None:
        """The first step that can begin; None where there is none, or no room for it yet.

        One that needs more cores or memory than is free is not passed by: else it might wait for
        ever. One whose turn it is not is.
        """
        ready = (
            step for step in waiting if all(k in ended for k in step.inputs.values() if k in known)
        )
        step = next((step for step in ready if not _held(step, running)), None)
        if step is None or len(running) >= self._workers:
            return None
        if not running:
            return step
        if step.needs.alone or any(item.needs.alone for item in running):
            return None
        cores = sum(item.needs.cores for item in (*running, step))
        memory = sum(item.needs.memory_mb for item in (*running, step))
        fits = cores <= self._cores and (self._memory is None or memory <= self._memory)
        return step if fits else None


def _held(step: Step, running: Sequence[Step]) -> bool:
    """Whether a step waits for one that runs, whatever room there is."""
    needs, others = step.needs, [item.needs for item in running]
    if needs.turn and any(needs.turn == other.turn for other in others):
        return True
    return bool(needs.gpus) and any(other.gpus for other in others)


def _cause(step: Step, ended: dict[str, Outcome]) -> Outcome | None:
    """The outcome of a step that it rests on, where that failed."""
    before = (ended[key] for key in step.inputs.values() if key in ended)
    return next((outcome for outcome in before if outcome.failed is not None), None)
