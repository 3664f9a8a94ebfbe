"""Steps on a Dask cluster: a worker that is killed, and workers that share no folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproof.errors import InputError
from edgeproof.steps.executors.executor import Begun, Ended
from edgeproof.steps.results import attempts
from edgeproof.steps.step import Needs, Step
from edgeproof.steps.store import Store, open_store
from edgeproof.steps.work import Outcome
from tests.stepping import step
from tests.test_steps import ended, text_of
from tests.test_steps_lost import damage

pytest.importorskip("distributed")
from edgeproof.steps.executors.cluster import DaskExecutor
from tests.dask_cluster import BUCKET, Cluster, cluster, s3_server


def with_one_lost(
    made: Cluster, store: Store, steps: list[Step], waits: Step, gate: Path
) -> dict[str, Outcome]:
    """Have steps done; who begins the one that `waits` is killed, then the gate is opened."""
    outcomes, lost = {}, False
    executor = DaskExecutor(store.url, made.address, 0, lambda text: None)
    for event in executor.run(steps):
        if isinstance(event, Ended):
            outcomes[event.step.label] = event.outcome
        if not lost and event.step is waits:
            while not made.kill_who_does(store, waits.key):
                pass
            lost = True
            gate.touch()
    assert lost
    assert not any(outcome.failed for outcome in outcomes.values())
    return outcomes


def test_what_a_lost_worker_was_at_is_done_by_another_and_nothing_else_is_done_twice(
    tmp_path: Path,
) -> None:
    store, gate = open_store(str(tmp_path / "store")), tmp_path / "gate"
    first = [step(f"a{number}") for number in range(4)]
    waits = step("waits", *first, until=str(gate))
    last = step("last", waits, first[0])
    steps = [*first, waits, last]
    with cluster(tmp_path / "cluster", {}) as made:
        made.worker("one")
        made.worker("two")
        outcomes = with_one_lost(made, store, steps, waits, gate)
    assert len(outcomes) == 6
    assert text_of(store, last, tmp_path / "t") == "last+waits+a0+a1+a2+a3+a0"
    begun = {item.label: len(attempts(store, item.key)) for item in steps}
    assert begun == {"a0": 1, "a1": 1, "a2": 1, "a3": 1, "waits": 2, "last": 1}


def test_on_s3_a_name_is_taken_once_and_workers_share_no_folder(tmp_path: Path) -> None:
    for package in ("s3fs", "moto", "boto3"):
        pytest.importorskip(package)
    gate = tmp_path / "gate"
    with s3_server() as found, cluster(tmp_path / "cluster", found) as made:
        store = open_store(f"s3://{BUCKET}/steps")
        assert store.read("a/b") is None
        assert store.create("a/b", b"first")
        assert not store.create("a/b", b"second")
        assert store.read("a/b") == b"first"
        assert store.names("a") == ["b"]
        made.worker("one")
        made.worker("two")
        first = step("a")
        waits = step("waits", first, until=str(gate))
        last = step("last", waits, first)
        with_one_lost(made, store, [first, waits, last], waits, gate)
        assert text_of(store, last, tmp_path / "t") == "last+waits+a+a"
        assert [len(attempts(store, item.key)) for item in (first, waits, last)] == [1, 2, 1]


def test_a_cluster_of_its_own_and_what_fails(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    bad = step("bad", exit=3)
    asked = [step("a"), bad, step("b", bad)]
    said: list[str] = []
    outcomes: dict[str, Any] = ended(DaskExecutor(store.url, None, 2, said.append).run(asked))
    assert {name for name, outcome in outcomes.items() if outcome.failed} == {"bad", "b"}
    assert outcomes["b"].failed == "export: it is said why"
    assert "dashboard http" in said[0]


def test_what_no_worker_has_room_for_is_said_at_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    fits = step("a", needs=Needs(cores=8, further={"gpu": 1}))
    with cluster(tmp_path / "cluster", {}) as made:
        made.worker("one", "--resources=cores=1 gpu=1")
        executor = DaskExecutor(store.url, made.address, 0, lambda text: None)
        assert ended(executor.run([fits]))["a"].failed is None
        with pytest.raises(InputError, match="no worker has gpu=2"):
            list(executor.run([step("b", needs=Needs(further={"gpu": 2}))]))
    with pytest.raises(InputError, match=r"--scheduler tcp://127\.0\.0\.1:9"):
        list(DaskExecutor(store.url, "tcp://127.0.0.1:9", 0, print).run([fits]))


def test_a_scheduler_that_is_gone_ends_the_run_in_a_line_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    store, gate = open_store(str(tmp_path / "store")), tmp_path / "gate"
    first = step("a")
    waits = step("waits", first, until=str(gate))
    with cluster(tmp_path / "cluster", {}) as made:
        made.worker("one")
        events = DaskExecutor(store.url, made.address, 0, lambda text: None).run([first, waits])

        def run() -> None:
            for event in events:
                if isinstance(event, Begun) and event.step is waits:
                    made.kill_scheduler()

        with pytest.raises(InputError, match="the scheduler is gone") as caught:
            run()
    assert len(str(caught.value).splitlines()) == 1
    gate.touch()  # the process that waits for it has nobody to end it
    again = ended(DaskExecutor(store.url, None, 1, lambda text: None).run([first, waits]))
    assert (again["a"].reused, again["waits"].failed) == (True, None)


def test_what_a_damaged_input_needs_goes_with_a_step(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    a = step("a")
    b = step("b", a)
    assert (
        ended(DaskExecutor(store.url, None, 1, lambda text: None).run([a, b]))["b"].reused is False
    )
    damage(store, a, "?")
    damage(store, b, "?")
    outcomes = ended(DaskExecutor(store.url, None, 1, lambda text: None).run([a, b, step("c", b)]))
    assert not any(outcome.failed for outcome in outcomes.values())
    assert text_of(store, step("c", b), tmp_path / "t") == "c+b+a"
