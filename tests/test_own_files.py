"""Our own JSON files: what is in one is read as its dataclass, or is damaged, in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.own import DamagedFileError, WrongJsonError, json_object, read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.recovery import read_recovery
from edgeproof.verdicts import Verdict, read_receipt, read_report, read_scores, read_short_runs
from export.release.record import read_record
from tests.small_root import make_small_root

NOT_OURS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "cut off": (b'{"schema": 1, "x', "not JSON"),
    "zeros": (bytes(100), "not JSON"),
    "a list": (b"[]", "all of it: an object expected, a list found"),
    "null": (b"null", "an object expected, null found"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "not UTF-8 text"),
    "half a character": (b'{"schema": 1, "a": "\\ud800"}', "not UTF-8 text"),
    "deep": (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    "a huge number": (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
    "over 64 bits": (b'{"a": 9223372036854775808}', "a number of 19 digits"),
    "infinity": (b'{"a": 1e999}', "a number without end"),
    "NaN": (b'{"a": NaN}', "NaN is no number"),
    "no schema": (b"{}", "schema is missing"),
    "a text for a schema": (b'{"schema": "1"}', "schema: a whole number expected, '1' found"),
    "true for a schema": (b'{"schema": true}', "schema: a whole number expected, true found"),
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest": ("edgeproof.json", open_artifact),
    "run": ("run.json", load_run_record),
    "report": ("parity.json", lambda folder: read_report(folder / "parity.json")),
    "short runs": ("elsewhere.json", lambda folder: read_short_runs(folder / "elsewhere.json")),
    "scores": ("evaluation.json", lambda folder: read_scores(folder / "evaluation.json")),
    "release": ("manifest.json", read_record),
    "recovery": ("recovery.json", read_recovery),
    "receipt": ("receipt.json", read_receipt),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_ours_is_damaged_and_named_in_a_line(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    for data, why in NOT_OURS.values():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedFileError) as caught:
            read(tmp_path)
        line = str(caught.value)
        assert line.startswith(f"{tmp_path / name}: damaged, not a")
        assert why in line
        assert line.isprintable()


@pytest.mark.parametrize("reader", READERS)
def test_what_the_system_does_not_give_is_not_damaged(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)") as caught:
        read(tmp_path)
    assert not isinstance(caught.value, DamagedFileError)


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    verdict: Verdict
    inner: tuple[Inner, ...]
    by_name: dict[str, float | None]
    rest: Any = None


SOUND = {
    "name": "n",
    "verdict": "PASS",
    "inner": [{"count": 3}, {"count": 0, "share": 1}],
    "by_name": {"a": 0.5, "b": None},
    "more": "is left out",
}


def test_a_dataclass_is_read_with_its_types() -> None:
    inner = (Inner(3), Inner(0, 1))
    assert typed(Outer, SOUND) == Outer("n", Verdict.PASS, inner, {"a": 0.5, "b": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: a text expected, 3 found"),
        ({"name": None}, "name: a text expected, null found"),
        (
            {"verdict": "GOOD"},
            "verdict: one of PASS, DEGRADED, FAIL, INCONCLUSIVE expected, 'GOOD'",
        ),
        ({"verdict": []}, "expected, a list found"),
        ({"inner": {}}, "inner: a list expected, an object found"),
        ({"inner": [{"count": 1}, {"count": True}]}, r"inner\[1\].count: a whole number expected"),
        ({"inner": [{"count": -1}]}, "a whole number expected, -1 found"),
        ({"inner": [{"count": 1.5}]}, "a whole number expected, 1.5 found"),
        ({"inner": [{}]}, r"inner\[0\].count is missing"),
        ({"by_name": {"a\x1b[31m\n": "x"}}, r"by_name.a\?\[31m\?: a number expected, 'x' found"),
        ({"by_name": {"a" * 200: "x"}}, r"by_name\.a{72}…: a number"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongJsonError, match=message) as caught:
        typed(Outer, SOUND | change)
    assert str(caught.value).isprintable()


def test_where_an_unknown_key_may_mean_something_it_is_wrong() -> None:
    with pytest.raises(WrongJsonError, match="more is unknown"):
        typed(Outer, SOUND, exact=(Outer,))


def test_numbers_of_64_bits_and_all_characters_are_fine() -> None:
    text = '{"a": 9223372036854775807, "b": "\\ud83d\\ude00 é"}'
    assert json_object(text.encode()) == {"a": 2**63 - 1, "b": "😀 é"}


def test_a_file_that_is_not_there_is_the_readers_matter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "gone", Schema(1, 1, "again"), dict)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_root(tmp_path_factory.mktemp("made"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "artifacts")
    return tmp_path / "artifacts"


def rows(root: Path) -> dict[str, dict[str, Any]]:
    done = run("status", root, "--json")
    assert done.exit_code == 0, done.output
    return {Path(item["path"]).name: item for item in json.loads(done.stdout)}


def test_a_damaged_manifest_is_listed_by_its_place_with_its_bytes(root: Path) -> None:
    before = rows(root)
    folder = root / "tiny" / "gguf" / "q8_0"
    (folder / "edgeproof.json").write_text('{"schema": 3}')
    found = rows(root)
    assert found.keys() == before.keys()
    assert found["q8_0"]["name"] == "gguf q8_0"
    assert found["q8_0"]["bytes"] == before["q8_0"]["bytes"] + len('{"schema": 3}')
    assert "damaged, not an edgeproof manifest (model is missing)" in found["q8_0"]["stale"]
    for name in found.keys() - {"q8_0"}:
        assert found[name] == before[name]
    done = run("clean", root, "--stale")
    assert done.exit_code == 0
    assert [line.split()[1] for line in done.output.splitlines()] == [str(folder)]


def test_a_damaged_report_hides_no_artifact(root: Path) -> None:
    before = rows(root)
    (root / "tiny" / "parity.json").write_text("{")
    found = rows(root)
    assert found.keys() == before.keys()
    for name, item in found.items():
        assert item["verdict"] == "–"
        assert "parity.json: damaged" in item["outdated"]
        assert (item["bytes"], item["stale"]) == (before[name]["bytes"], None)
    assert run("clean", root, "--stale").output == ""


def test_a_damaged_run_record_hides_no_artifact_and_removes_none(root: Path) -> None:
    before = rows(root)
    (root / "run.json").write_text('{"schema": 1, "models": 3}')
    found = rows(root)
    assert found.keys() == before.keys()
    for name, item in found.items():
        assert "run.json: damaged" in item["unknown"]
        assert item["verdict"] == before[name]["verdict"]
    assert run("clean", root, "--stale").output == ""


def test_a_checkpoint_that_no_system_can_name_is_one_that_cannot_be_read(root: Path) -> None:
    record = json.loads((root / "run.json").read_text())
    record["models"][0]["checkpoint"] = "x" * 5000
    (root / "run.json").write_text(json.dumps(record))
    assert all("its checkpoint cannot be read" in item["unknown"] for item in rows(root).values())


@pytest.mark.parametrize("place", ["tiny", "tiny/gguf", "tiny/gguf/q8_0"])
def test_a_folder_that_cannot_be_looked_into_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    original = Path.iterdir
    before = rows(root)

    def closed(self: Path) -> Any:
        if self == root / place:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self)

    monkeypatch.setattr(Path, "iterdir", closed)
    found = rows(root)
    assert found[Path(place).name]["unknown"] == "cannot be read (Permission denied)"
    hidden = {Path(item["path"]) for item in before.values()} - {
        Path(item["path"]) for item in found.values()
    }
    assert all(path.is_relative_to(root / place) for path in hidden)
    assert run("clean", root, "--stale").output == ""


def test_status_of_names_that_move_a_cursor_stays_one_line_each(root: Path) -> None:
    path = root / "tiny" / "gguf" / "q8_0" / "edgeproof.json"
    raw = json.loads(path.read_text())
    raw["variant"]["name"] = "q8\n\x1b[2J"
    path.write_text(json.dumps(raw))
    lines = run("status", root).output.splitlines()
    assert len(lines) == len(rows(root))
    assert all(line.isprintable() for line in lines)
