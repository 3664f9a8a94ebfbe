"""Steps: what a store promises, and those who have steps done on this machine."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.steps import machine
from edgeproof.steps.children import Children
from edgeproof.steps.executors.executor import Begun, Ended, Event
from edgeproof.steps.executors.local import LocalExecutor
from edgeproof.steps.planned import GivenFiles
from edgeproof.steps.progress import Progress, Status
from edgeproof.steps.results import (
    LostResultError,
    Result,
    attempts,
    fetch,
    files_of,
    find,
    keep,
)
from edgeproof.steps.step import Kind, Needs, Step, read_step
from edgeproof.steps.store import Store, open_store
from edgeproof.steps.work import Outcome, Work, perform, perform_text, read_outcome
from runtimes.parity.captured import FOLDERS
from runtimes.parity.steps.reference import place
from tests.stepping import step

GB = 1000


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    pytest.importorskip("fsspec")
    return open_store(f"memory://{tmp_path.name}")


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def text_of(store: Store, asked: Step, place: Path) -> str:
    result = find(store, asked.key)
    assert result is not None
    fetch(store, result, place)
    return (place / "text").read_text()


def made(folder: Path, **files: str) -> Result:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return Result(Kind.EXPORT, "made", files_of(folder), "here", 1.0)


def test_what_is_created_stays(store: Store) -> None:
    assert store.read("a/b") is None
    assert not store.has("a/b")
    assert store.names("a") == []
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    store.replace("a/b", b"third")
    assert store.read("a/b") == b"third"
    assert store.names("a") == ["b"]
    assert open_store(store.url).read("a/b") == b"third"


def test_of_many_who_create_a_name_one_is_first(here: Store) -> None:
    first: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: first.append(here.create("x", b"%d" % n)))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(first) == [False] * 15 + [True]


def test_a_result_is_there_with_its_files_or_not_at_all(store: Store, tmp_path: Path) -> None:
    result = made(tmp_path / "one", a="x", b="y")
    assert find(store, "k" * 64) is None
    assert keep(store, "k" * 64, result, tmp_path / "one", take=False) == result
    assert find(store, "k" * 64) == result
    fetch(store, result, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "b").read_text() == "y"
    again = made(tmp_path / "two", a="z")
    assert keep(store, "k" * 64, again, tmp_path / "two", take=True) == result


def test_a_result_whose_file_is_gone_is_made_again(here: Store, tmp_path: Path) -> None:
    result = made(tmp_path / "one", a="x")
    keep(here, "k" * 64, result, tmp_path / "one", take=False)
    (kept,) = (path for path in (tmp_path / "store" / "files").rglob("*") if path.is_file())
    kept.unlink()
    assert find(here, "k" * 64) is None
    again = made(tmp_path / "two", a="z")
    assert keep(here, "k" * 64, again, tmp_path / "two", take=False) == again
    assert find(here, "k" * 64) == again


def test_what_is_damaged_or_leaves_its_folder_is_refused(here: Store, tmp_path: Path) -> None:
    result = made(tmp_path / "one", a="x")
    keep(here, "k" * 64, result, tmp_path / "one", take=False)
    (kept,) = (path for path in (tmp_path / "store" / "files").rglob("*") if path.is_file())
    kept.write_text("w")
    with pytest.raises(LostResultError, match="damaged, and thrown away"):
        fetch(here, result, tmp_path / "fetched")
    assert not kept.exists()
    (tmp_path / "one" / "a").write_text("changed, which no one else's is")
    outside = Result(Kind.EXPORT, "bad", (OutputFile("../a", 1, "0" * 64),), "", 0.0)
    with pytest.raises(InputError, match="leaves its folder"):
        fetch(here, outside, tmp_path / "fetched")


@pytest.mark.parametrize(
    ("path", "sha256", "says"),
    [
        ("artifact/../../elsewhere/edgeproof.json", "0" * 64, "leaves its folder"),
        ("/elsewhere/edgeproof.json", "0" * 64, "leaves its folder"),
        ("artifact/edgeproof.json", "../../secret", "has no SHA-256"),
    ],
)
def test_a_record_that_somebody_else_wrote_names_nothing_outside(
    here: Store, tmp_path: Path, path: str, sha256: str, says: str
) -> None:
    """An artifact's place in the user's folder follows from the names in its record."""
    result = made(tmp_path / "one", a="x")
    keep(here, "k" * 64, result, tmp_path / "one", take=False)
    (record,) = (tmp_path / "store" / "results").rglob("*.json")
    text = record.read_text().replace('"a"', json.dumps(path))
    record.write_text(text.replace(result.files[0].sha256, sha256))
    with pytest.raises(InputError, match=says):
        find(here, "k" * 64)


def test_a_key_follows_from_what_results_depend_on_and_nothing_else() -> None:
    one = step("a")
    assert read_step(one.text) == one
    assert read_step(one.text).key == one.key
    assert step("a", needs=Needs(cores=7)).key == one.key
    others = [step("b"), step("a", step("b")), step("a", seconds=1)]
    assert len({item.key for item in (one, *others)}) == 4


def test_a_step_is_done_once_and_a_failure_is_kept_nowhere(here: Store, tmp_path: Path) -> None:
    asked = step("a", note=str(tmp_path / "note"))
    first, second = (perform(asked, Work(here, Children())) for _ in range(2))
    assert (first.failed, first.reused, second.failed, second.reused) == (None, False, None, True)
    assert (tmp_path / "note").read_text().count("begin") == 1
    assert len(attempts(here, asked.key)) == 1
    bad = step("b", exit=2)
    for _ in range(2):
        outcome = perform(bad, Work(here, Children()))
        assert outcome.failed == "export: it is said why"
        assert "something else" in outcome.said
    assert len(attempts(here, bad.key)) == 2
    killed = perform(step("c", kill=True), Work(here, Children()))
    assert killed.failed is not None
    assert "ended by SIGKILL" in killed.failed


def test_what_is_made_of_files_that_changed_meanwhile_is_kept_nowhere(
    here: Store, tmp_path: Path
) -> None:
    """Else everybody with the old files would be given what the new ones made."""
    place = tmp_path / "given"
    files = GivenFiles(str(place), made(place, text="old").files)
    asked = replace(step("a"), inputs={"i0": "k" * 64})
    (place / "text").write_text("new")
    outcome = perform(asked, Work(here, Children(), {"k" * 64: files}))
    assert (
        outcome.failed == f"export: {place / 'text'}: it has changed since the run began; run again"
    )
    assert find(here, asked.key) is None
    (place / "text").write_text("old")
    assert perform(asked, Work(here, Children(), {"k" * 64: files})).failed is None
    assert text_of(here, asked, tmp_path / "t") == "a+old"


def test_what_a_reference_step_gives_lies_nowhere_else_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environments that programs are run from lie there, too."""
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    for number, folder in enumerate(FOLDERS):
        (tmp_path / "given" / folder).mkdir(parents=True)
        (tmp_path / "given" / folder / "x").write_text(str(number))
    place(tmp_path / "given")
    assert (tmp_path / "cache" / FOLDERS[-1] / "x").read_text() == str(len(FOLDERS) - 1)
    (tmp_path / "other" / "environments").mkdir(parents=True)
    (tmp_path / "other" / "environments" / "x.pth").write_text("import os")
    with pytest.raises(InputError, match=r"environments: no reference step gives this"):
        place(tmp_path / "other")
    assert not (tmp_path / "cache" / "environments").exists()


def test_a_machine_with_other_libraries_is_refused(here: Store) -> None:
    other = step("a", versions={"numpy": "0.1"})
    outcome = perform(other, Work(here, Children()))
    assert outcome.failed is not None
    assert "the run was begun with 0.1" in outcome.failed
    assert attempts(here, other.key) == []


def test_texts_carry_steps_and_outcomes(here: Store, tmp_path: Path) -> None:
    first = step("a")
    outcome = perform_text(first.text, here.url, [])
    after = step("b", first)
    assert read_outcome(perform_text(after.text, here.url, [outcome])).failed is None
    assert text_of(here, after, tmp_path / "t") == "b+a"
    bad = read_outcome(perform_text(step("c", after).text, here.url, [Outcome("k", "why").text]))
    assert bad.failed == "why"


def ended(events: Iterator[Event]) -> dict[str, Outcome]:
    return {event.step.label: event.outcome for event in events if isinstance(event, Ended)}


def test_what_fails_stops_only_what_needs_it(here: Store, tmp_path: Path) -> None:
    a, bad = step("a"), step("bad", exit=3)
    b, c = step("b", a), step("c", bad, a)
    d = step("d", c)
    outcomes = ended(LocalExecutor(here, 2, 2, None).run([a, bad, b, c, d]))
    assert {name for name, outcome in outcomes.items() if outcome.failed} == {"bad", "c", "d"}
    assert outcomes["d"].failed == outcomes["bad"].failed == "export: it is said why"
    assert text_of(here, b, tmp_path / "t") == "b+a"


@pytest.mark.parametrize("workers", [1, 3])
def test_cores_memory_and_being_alone_say_what_runs_at_once(
    here: Store, tmp_path: Path, workers: int
) -> None:
    note = tmp_path / "note"
    wide = Needs(cores=2)
    big = Needs(memory_mb=3 * GB)
    asked = [
        step("w1", note=str(note), seconds=0.05, needs=wide),
        step("w2", note=str(note), seconds=0.05, needs=wide),
        step("m1", note=str(note), seconds=0.05, needs=big),
        step("m2", note=str(note), seconds=0.05, needs=big),
        step("alone", note=str(note), seconds=0.05, needs=Needs(alone=True)),
    ]
    outcomes = ended(LocalExecutor(here, workers, 3, 5 * GB).run(asked))
    assert not any(outcome.failed for outcome in outcomes.values())
    running: set[str] = set()
    for line in note.read_text().splitlines():
        what, _, name = line.partition(" ")
        running ^= {name}
        for pair in ({"w1", "w2"}, {"m1", "m2"}):
            assert not pair <= running
        assert "alone" not in running or running == {"alone"}
        assert what != "begin" or len(running) <= workers


def test_an_interrupted_run_ends_its_processes_and_the_next_one_goes_on(
    here: Store, tmp_path: Path
) -> None:
    done, gate = step("a"), tmp_path / "gate"
    waits = step("b", done, until=str(gate))
    events = LocalExecutor(here, 1, 1, None).run([done, waits])
    for event in events:
        if isinstance(event, Begun) and event.step is waits:
            break
    events.close()
    assert find(here, waits.key) is None
    gate.touch()
    outcomes = ended(LocalExecutor(here, 1, 1, None).run([done, waits]))
    assert outcomes["a"].reused
    assert outcomes["b"].failed is None
    assert text_of(here, waits, tmp_path / "t") == "b+a"


@pytest.mark.skipif(sys.platform == "win32", reason="nobody waits there")
def test_who_is_alone_waits_for_the_others_and_they_for_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    order: list[str] = []
    begun, leave = threading.Event(), threading.Event()

    def take(name: str, *, alone: bool) -> None:
        with machine.turn(alone=alone, stopped=lambda: False):
            order.append(f"{name} in")
            begun.set()
            leave.wait()
            order.append(f"{name} out")

    threads = {
        name: threading.Thread(target=take, args=(name,), kwargs={"alone": name == "b"})
        for name in "abc"
    }
    threads["a"].start()
    begun.wait()
    threads["b"].start()
    while not held(next(tmp_path.iterdir()) / "door"):
        time.sleep(0.01)
    threads["c"].start()
    assert order == ["a in"]
    leave.set()
    for thread in threads.values():
        thread.join()
    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"]


def held(lock: Path) -> bool:
    """Whether somebody has that lock."""
    import fcntl

    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_progress_counts_and_says_why() -> None:
    a, b = step("a"), step("b")
    progress = Progress([a, b], time.monotonic() - 200)
    progress.tell(Begun(a, "host:1"))
    assert progress.states[a.key].status is Status.RUNNING
    event = Ended(b, Outcome(b.key, "export: \x1b[31mwhy", where="host:2"))
    progress.tell(event)
    line = progress.line(event)
    assert line == "[1/2] m: export b: FAILED, export: ?[31mwhy (host:2)"
    assert progress.summary() == "2 steps: 1 failed, 1 running; 3 min gone"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scheduler=tcp://h:1",), "are for --executor dask"),
        (("--executor=dask", "--scheduler=tcp://h:1"), "needs --store"),
        (("--store=",), "neither a folder nor a URL"),
        (("--store=/proc/none",), "no store can be made there"),
        (("--store=nothing://x",), "nothing://x"),
        (("--model=gone", "--budget=vast"), "'vast' is not one of 'fast', 'default', 'full'\n"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["run", "--out=out", *arguments])
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()
