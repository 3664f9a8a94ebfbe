"""Workers of a Dask cluster: it decides who does what, and has others do what a lost one was at.

Dask carries texts: a step, the store's URL, outcomes. What steps make goes through the store.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from edgeproof.display import megabytes
from edgeproof.errors import InputError
from edgeproof.steps.executors.executor import Begun, Ended, Event
from edgeproof.steps.graph import Given
from edgeproof.steps.machine import memory_mb, where
from edgeproof.steps.results import find, keep
from edgeproof.steps.step import Kind, Step
from edgeproof.steps.store import open_store
from edgeproof.steps.work import Outcome, perform_text, read_outcome

if TYPE_CHECKING:
    from distributed import Client

# Of a worker's resources (`dask worker --resources "cores=8 memory=32000 gpu=1 gpu_memory=80000"`).
CORES, MEMORY, GPU, GPU_MEMORY = "cores", "memory", "gpu", "gpu_memory"
TOPIC = "edgeproof"  # of the events that workers send
PATIENCE = 60.0  # seconds for a first worker to come
Work = Callable[[str, str, Sequence[str], Sequence[str]], str]


class DaskExecutor:
    """A cluster that is there at an address, or of so many `workers` here while the run lasts.

    `work` is what workers do; they find the store by its URL.
    """

    def __init__(
        self,
        store: str,
        address: str | None,
        workers: int,
        told: Callable[[str], None],
        work: Work = perform_text,
    ) -> None:
        self._store, self._address, self._workers = store, address, workers
        self._told, self._work = told, work

    def run(
        self, steps: Sequence[Step], given: Sequence[Given] = ()
    ) -> Generator[Event, None, None]:
        """Do them, once the store has what is given."""
        store = open_store(self._store)
        for item in given:
            if find(store, item.key) is None:
                self._told(f"{store.url}: putting {item.label}, {megabytes(item.bytes)} MB")
                keep(store, item.key, item.result(where()), item.files.place, take=False)
        with self._client() as client:
            self._told(f"Dask: {client.scheduler.address}, dashboard {client.dashboard_link}")
            offered = _offered(client)
            _require_room(steps, offered)
            yield from self._run(client, steps, offered)

    def _run(
        self, client: Client, steps: Sequence[Step], offered: Mapping[str, float]
    ) -> Generator[Event, None, None]:
        told: SimpleQueue[Any] = SimpleQueue()  # futures that have ended, and what workers say
        client.subscribe_topic(TOPIC, told.put)
        futures: dict[str, Any] = {}
        texts = {step.key: step.text for step in steps}
        rests: dict[str, dict[str, str]] = {}  # of each step: what it rests on, as texts
        for step in steps:
            inputs = [key for key in step.inputs.values() if key in futures]
            before = [futures[key] for key in inputs]
            rests[step.key] = {}
            for key in inputs:
                rests[step.key] |= rests[key]
            rests[step.key] |= {key: texts[key] for key in inputs}
            futures[step.key] = client.submit(
                _announced,
                self._work,
                _name(step),
                step.text,
                self._store,
                before,
                list(rests[step.key].values()),
                key=_name(step),
                resources=_asked(step, offered),
                priority=-list(Kind).index(step.kind),
                pure=False,
            )
        by_name = {_name(step): step for step in steps}
        for future in futures.values():
            future.add_done_callback(told.put)
        try:
            while by_name:
                news = told.get()
                if not isinstance(news, tuple):
                    if news.cancelled():
                        raise InputError(
                            f"{client.scheduler.address}: the scheduler is gone, or has cancelled"
                            " the run; the same command goes on"
                        )
                    step = by_name.pop(str(news.key))
                    yield Ended(step, _outcome(step, news))
                elif news[1]["name"] in by_name:  # neither of another run nor late
                    yield Begun(by_name[news[1]["name"]], news[1]["where"])
        finally:
            with contextlib.suppress(Exception):  # whatever a lost connection raises
                client.unsubscribe_topic(TOPIC)
                client.cancel(list(futures.values()))

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        from distributed import Client, LocalCluster

        if self._address is not None:
            try:
                client = Client(self._address, timeout=10)
            except (OSError, ValueError) as error:
                raise InputError(f"--scheduler {self._address}: {error}") from None
            with client:
                yield client
            return
        memory = memory_mb()
        resources = {} if memory is None else {MEMORY: memory / self._workers}
        with (
            LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                resources=resources,
                memory_limit=0,  # steps are processes of their own
                silence_logs=logging.ERROR,  # what Dask says of workers that end
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


def _announced(
    work: Work, name: str, step: str, store: str, before: Sequence[str], rests: Sequence[str]
) -> str:
    """Do a step on a worker, which says that it begins."""
    from distributed import get_worker

    get_worker().log_event(TOPIC, {"name": name, "where": where()})
    return work(step, store, before, rests)


def _name(step: Step) -> str:
    """What Dask knows it by: of two runs that ask for the same step one is done."""
    return f"edgeproof-{step.kind.value}-{step.key}"


def _offered(client: Client) -> dict[str, float]:
    """The most of each resource that a worker has."""
    client.wait_for_workers(1, timeout=PATIENCE)
    offered: dict[str, float] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        for name, amount in worker["resources"].items():
            offered[name] = max(amount, offered.get(name, 0.0))
    return offered


def _asked(step: Step, offered: Mapping[str, float]) -> dict[str, float]:
    """What a step takes of the resources that workers have.

    Of cores and memory, a GPU's too, no more than there is: a step that needs more has a worker for
    itself.
    """
    needs = step.needs
    own = {
        CORES: needs.cores,
        MEMORY: needs.memory_mb,
        GPU: needs.gpus,
        GPU_MEMORY: needs.gpu_memory_mb,
    }
    asked = {
        name: min(float(amount), offered[name])
        for name, amount in own.items()
        if amount and name in offered
    }
    return {**asked, **needs.further}


def _require_room(steps: Sequence[Step], offered: Mapping[str, float]) -> None:
    """Refuse what no worker will ever have room for.

    Raises:
        InputError: naming the resource.
    """
    for step in steps:
        for name, amount in step.needs.further.items():
            if amount > offered.get(name, 0.0):
                told = f"{name}={amount:g}"
                raise InputError(
                    f"no worker has {told}, which {step.kind.value} steps need; begin one with:"
                    f' dask worker --resources "{told}"'
                )


def _outcome(step: Step, future: Any) -> Outcome:
    """What became of a step; one that Dask gave up, after workers were lost over it, has failed."""
    if future.status == "finished":
        return read_outcome(future.result())
    reason = str(future.exception()).partition("\n")[0]
    return Outcome(step.key, f"{step.kind.value}: {reason}")
