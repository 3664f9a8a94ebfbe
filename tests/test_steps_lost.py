"""What a store loses is done again, and what is of a machine is served to no other kind."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import MANIFEST
from edgeproof.artifact.run_record import (
    Origin,
    PlannedRecovery,
    PlannedVariant,
    load_run_record,
)
from edgeproof.goal import Goal
from edgeproof.steps import run as steps_run
from edgeproof.steps import work as steps_work
from edgeproof.steps.children import Children
from edgeproof.steps.collect import collect
from edgeproof.steps.executors.executor import Ended
from edgeproof.steps.executors.local import LocalExecutor
from edgeproof.steps.graph import Graph, ModelSteps, RecoverySteps, Variant
from edgeproof.steps.planned import GivenFiles, PlannedExport, PlannedModel, PlannedRecovered
from edgeproof.steps.results import attempts, find
from edgeproof.steps.run import Wanted
from edgeproof.steps.step import Kind, Needs, Step
from edgeproof.steps.store import Store, open_store
from edgeproof.steps.work import Outcome, Work, perform, perform_text, read_outcome
from tests.stepping import step
from tests.test_steps import ended, text_of


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def damage(store: Store, asked: Step, text: str | None, key: str | None = None) -> None:
    """Put another text, or nothing, in the place of a result's file."""
    result = find(store, key or asked.key)
    assert result is not None
    for item in result.files:
        place = Path(store.url) / "files" / item.sha256[:2] / item.sha256
        place.unlink()
        if text is not None:
            place.write_text(text)


@pytest.mark.parametrize("text", ["", "b+x", None], ids=["truncated", "altered", "gone"])
def test_an_input_that_is_lost_is_made_again_where_it_is_needed(
    here: Store, tmp_path: Path, text: str | None
) -> None:
    a = step("a")
    b = step("b", a)
    c = step("c", b)
    outcomes = ended(LocalExecutor(here, 1, 1, None).run([a, b]))
    before = list(outcomes.values())
    damage(here, b, text)
    damage(here, a, text)  # what has to be made again needs this one
    told = [outcome.text for outcome in before if outcome.key == b.key]
    done = read_outcome(perform_text(c.text, here.url, told, [a.text, b.text]))
    assert done.failed is None
    assert text_of(here, c, tmp_path / "c") == "c+b+a"
    assert [len(attempts(here, item.key)) for item in (a, b, c)] == [2, 2, 1]
    damage(here, b, text)
    last = step("last", b)
    done = read_outcome(perform_text(last.text, here.url, told))
    assert done.lost  # nobody there knows what gives it
    assert done.failed is not None
    assert len(done.failed.splitlines()) == 1


def test_a_record_that_is_damaged_is_made_again(here: Store, tmp_path: Path) -> None:
    a = step("a")
    assert perform(a, Work(here, Children())).failed is None
    (record,) = (tmp_path / "store" / "results").rglob("*.json")
    record.write_bytes(record.read_bytes()[:40])
    assert find(here, a.key) is None
    outcome = perform(a, Work(here, Children()))
    assert (outcome.failed, outcome.reused) == (None, False)
    assert text_of(here, a, tmp_path / "a") == "a"


def test_what_is_of_a_machine_is_taken_again_on_another_kind(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is what rests on it; what does not is shared."""
    export = step("export")
    cost = replace(step("cost", export), kind=Kind.FOOTPRINT)
    compared = replace(step("compared", cost, export), kind=Kind.MEASURE)
    steps = [export, cost, compared]

    def run(machine: str) -> dict[str, Outcome]:
        monkeypatch.setattr(steps_work, "machine_kind", lambda: machine)
        return ended(LocalExecutor(here, 1, 1, None).run(steps))

    node = run("a node, 64 cores")
    laptop = run("a laptop, 8 cores")
    assert [laptop[item.label].reused for item in steps] == [True, False, False]
    assert [len(attempts(here, item.key)) for item in steps] == [1, 2, 2]
    for name in ("cost", "compared"):
        assert node[name].result != laptop[name].result
    for machine, outcomes in (("a node, 64 cores", node), ("a laptop, 8 cores", laptop)):
        assert all(outcome.reused for outcome in run(machine).values())
        found = find(here, outcomes["cost"].result)
        assert found is not None
        assert found.machine == machine


def test_one_damaged_artifact_is_done_again_and_one_that_stays_so_is_one_failure(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are judged, whatever became of it."""
    good, bad = (step(name, file=f"artifact/m/gguf/{name}/{MANIFEST}") for name in ("good", "bad"))
    variants = tuple(
        Variant(planned(item.label), item, None, step(f"compared {item.label}", file="result"))
        for item in (good, bad)
    )
    folder = GivenFiles(str(tmp_path), ())
    model = ModelSteps(PlannedModel("m", folder, (), 1, ()), step("reference"), variants, ())
    graph = Graph((), (model,))
    executor = LocalExecutor(here, 1, 1, None)
    ended(executor.run(graph.steps))
    damage(here, bad, "")

    def told(number: int) -> dict[str, Any]:
        root, place = tmp_path / f"out{number}", tmp_path / f"folder{number}"
        wanted = Wanted(root, False, False, None, None, {}, 0.0)
        (found,) = steps_run._done(graph, here, executor, wanted, {}, place)
        return {Path(item["path"]).name: item for item in found["artifacts"]}

    artifacts = told(1)
    assert artifacts["bad"]["failed"] is artifacts["good"]["failed"] is None
    assert [len(attempts(here, item.key)) for item in (good, bad)] == [1, 2]

    put = type(here).put

    def broken(self: Any, name: str, path: Path, *, take: bool) -> None:
        """A disk that gives back something else."""
        put(self, name, path, take=False)
        if "bad" in path.parts:
            (Path(self.url) / name).write_text("?")

    monkeypatch.setattr(type(here), "put", broken)
    damage(here, bad, "")
    artifacts = told(2)
    assert artifacts["good"]["failed"] is None
    assert "damaged, and thrown away" in artifacts["bad"]["failed"]


def planned(name: str) -> PlannedExport:
    return PlannedExport(name, f"gguf/{name}", "", {}, {}, {}, Needs(), allow_degraded=False)


def test_steps_on_a_gpu_and_of_one_turn_are_done_one_at_a_time(here: Store, tmp_path: Path) -> None:
    """What needs neither goes on beside them."""
    note = tmp_path / "note"

    def asked(name: str, needs: Needs) -> Step:
        return step(name, note=str(note), seconds=0.1, needs=needs)

    steps = [
        asked("g1", Needs(gpus=1, gpu_memory_mb=500)),
        asked("g2", Needs(gpus=1, gpu_memory_mb=500)),
        asked("t1", Needs(turn="m")),
        asked("t2", Needs(turn="m")),
        asked("free", Needs()),
    ]
    outcomes = ended(LocalExecutor(here, 3, 3, None).run(steps))
    assert not any(outcome.failed for outcome in outcomes.values())
    running: set[str] = set()
    most = 0
    for line in note.read_text().splitlines():
        running ^= {line.partition(" ")[2]}
        most = max(most, len(running))
        for pair in ({"g1", "g2"}, {"t1", "t2"}):
            assert not pair <= running
    assert most > 1


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full; free some space"), (errno.EROFS, "cannot be written")],
)
def test_a_store_that_takes_nothing_is_a_line_of_the_step_and_leaves_nothing(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def refused(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    a, b = step("a"), step("b")
    with monkeypatch.context() as patch:
        patch.setattr("edgeproof.steps.folder.link_file", refused)
        outcome = ended(LocalExecutor(here, 1, 1, None).run([a]))["a"]
    assert outcome.failed is not None
    assert says in outcome.failed
    assert len(outcome.failed.splitlines()) == 1
    assert find(here, a.key) is None
    assert not [path for path in (tmp_path / "store" / "files").rglob("*") if path.is_file()]
    assert not any(o.failed for o in ended(LocalExecutor(here, 1, 1, None).run([a, b])).values())


def test_run_json_names_the_recovered_checkpoint_that_artifacts_were_made_from(
    here: Store, tmp_path: Path
) -> None:
    """A distilled one that lies here already may be another one than the store's."""
    recover, place = replace(step("recovered"), kind=Kind.RECOVER), tmp_path / "cache" / "key"
    export = step("made", recover, file=f"artifact/m/gguf/made/{MANIFEST}")
    made = Variant(planned("made"), export, None, step("compared", file="result"))
    wanted = PlannedVariant("m/gguf/made", False, "gguf", "made", False, {})
    recovery = PlannedRecovery(Origin("m", None, None, None), Goal("any", distill=1.0), (wanted,))
    found = RecoverySteps(PlannedRecovered(recovery, (made.planned,)), str(place), recover, (made,))
    model = PlannedModel("m", GivenFiles(str(tmp_path), ()), (), 1, ())
    graph = Graph((), (ModelSteps(model, step("reference"), (), (found,)),))
    outcomes = LocalExecutor(here, 1, 1, None).run(graph.steps)
    by_key = {event.step.key: event.outcome for event in outcomes if isinstance(event, Ended)}

    def named(root: Path) -> Path:
        taken = collect(graph, by_key, here, root, {}, lambda line: None)
        (item,) = load_run_record(root).models[0].made
        assert taken.checkpoints == {recover.key: item.checkpoint}
        return Path(str(item.checkpoint))

    assert named(tmp_path / "a") == place
    (place / "text").write_text("distilled here")
    other = named(tmp_path / "b")
    assert (other / "text").read_text() == "recovered"
    assert other.parent == place.parent
    assert (place / "text").read_text() == "distilled here"
    assert named(tmp_path / "c") == other
