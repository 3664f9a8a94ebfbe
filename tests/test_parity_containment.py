"""Nothing that an artifact contains ends a parity run: it FAILs, and the others are judged."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from edgeproof.artifact import Artifact
from edgeproof.verdicts import Verdict
from runtimes.parity import localised, measure, weights_alone
from runtimes.parity import run as parity_run
from runtimes.parity.__main__ import main as parity_main
from runtimes.parity.decoding import Task, draw
from runtimes.parity.divergence import ARRAYS, PositionMetrics
from runtimes.parity.finished import Compared, Finished
from runtimes.parity.localise import Cause, Finding, TensorError, Weighed
from runtimes.parity.verdict import Judgement
from tests.parity_results import measurement
from tests.parity_runs import compare, copied, export_plan, invoke, only, report

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_plan(tmp_path_factory.mktemp("parity"))


@pytest.fixture
def out(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(exported, tmp_path, monkeypatch)


def flip_a_weight_bit(out: Path) -> None:
    path = next((out / "tiny/gguf/f16").glob("*.gguf"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 0x40
    path.write_bytes(data)


def truncate(out: Path) -> None:
    path = next((out / "tiny/gguf/f16").glob("*.gguf"))
    path.write_bytes(path.read_bytes()[:-64])


def made_from_other_inputs(out: Path) -> None:
    path = out / "tiny/gguf/f16/edgeproof.json"
    raw = json.loads(path.read_text())
    raw["model"]["inputs"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_weight_bit, "SHA-256"),
        (truncate, "wrong size"),
        (made_from_other_inputs, "made from other inputs"),
    ],
)
def test_a_broken_artifact_fails_and_the_others_are_still_judged(
    out: Path, damage: Callable[[Path], None], reason: str
) -> None:
    only(out, "tiny/onnx/fp32", "tiny/gguf/f16")
    damage(out)
    assert compare("--root", out).exit_code == 1
    entries = report(out)
    assert entries["gguf/f16"]["verdict"] == "FAIL"
    assert reason in entries["gguf/f16"]["reasons"][0]
    assert entries["onnx/fp32"]["verdict"] == "PASS"


def judged(entry: dict[str, Any]) -> bool:
    """Whether a good export was measured without an error, on too few positions to decide."""
    reasons = [reason for reason in entry["reasons"] if "give 1,000" not in reason]
    return entry["verdict"] == "INCONCLUSIVE" and all("errors in 0 of" in line for line in reasons)


def a_short_context(out: Path) -> None:
    rewrite(out / "tiny/onnx/fp32", "config.json", lambda raw: raw | {"max_position_embeddings": 9})


def no_layers(out: Path) -> None:
    rewrite(out / "tiny/onnx/fp32", "config.json", lambda raw: {"vocab_size": raw["vocab_size"]})


def no_json(out: Path) -> None:
    rewrite(out / "tiny/onnx/fp32", "config.json", lambda raw: [])


def no_graph(out: Path) -> None:
    replace_file(out / "tiny/onnx/fp32", "onnx/model.onnx", b"\xff" * 100)


def a_looping_template(out: Path) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    rewrite(
        out / "tiny/onnx/fp32", "tokenizer_config.json", lambda raw: raw | {"chat_template": loop}
    )


def an_unreadable_manifest(out: Path) -> None:
    (out / "tiny/onnx/fp32/edgeproof.json").write_text("{}")


def an_unknown_format(out: Path) -> None:
    """As of a package that has been removed since."""
    path = out / "tiny/onnx/fp32/edgeproof.json"
    raw = json.loads(path.read_text())
    raw["variant"]["format"] = "gone"
    path.write_text(json.dumps(raw))


def rewrite(artifact: Path, name: str, change: Callable[[Any], Any]) -> None:
    raw = json.loads((artifact / name).read_text())
    replace_file(artifact, name, json.dumps(change(raw)).encode())


def replace_file(artifact: Path, name: str, data: bytes) -> None:
    """Change a file and its hash in the manifest: what a wrong exporter would have written."""
    (artifact / name).write_bytes(data)
    manifest = artifact / "edgeproof.json"
    raw = json.loads(manifest.read_text())
    for item in raw["outputs"]:
        if item["path"] == name:
            item |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "damage",
    [
        a_short_context,
        no_layers,
        no_json,
        no_graph,
        a_looping_template,
        an_unreadable_manifest,
        an_unknown_format,
    ],
)
def test_nothing_that_an_artifact_contains_ends_the_run(
    out: Path, damage: Callable[[Path], None]
) -> None:
    only(out, "tiny/onnx/fp32", "tiny/gguf/f16")
    damage(out)
    result = compare("--root", out, "--positions", 100, "--no-html")
    assert result.exit_code == 1, result.output
    entries = report(out)
    assert judged(entries["gguf/f16"])
    unread = {
        an_unreadable_manifest: "not an edgeproof manifest",
        an_unknown_format: "nothing here reads the format 'gone'",
    }
    if damage in unread:  # nothing tells what it is: no entry, but a line of its own
        (item,) = json.loads((out / "tiny/parity.json").read_text())["unreadable"]
        assert item["folder"] == "onnx/fp32"
        assert unread[damage] in item["reason"]
        assert "of 2 artifacts did not pass" in result.stderr
    else:
        assert entries["onnx/fp32"]["verdict"] == "FAIL"
        assert entries["onnx/fp32"]["reasons"][0]


class Panic(BaseException):
    """As one of a library written in Rust."""


@pytest.mark.parametrize("error", [KeyError("bits"), IndexError(), Panic("index out of bounds")])
@pytest.mark.parametrize(
    ("module", "place"),
    [(weights_alone, "dequantise"), (parity_run, "compare_metadata"), (localised, "localise")],
    ids=["dequantise", "compare_metadata", "localise"],
)
def test_whatever_a_reader_raises_fails_its_artifact_only(
    out: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, place: str, error: BaseException
) -> None:
    original = getattr(module, place)

    def fails(subject: Any, *rest: Any, **options: Any) -> Any:
        artifact = getattr(subject, "artifact", subject)
        if artifact.manifest.variant.format == "mlc":
            raise error
        return original(subject, *rest, **options)

    monkeypatch.setattr(module, place, fails)
    (mlc,) = (out / "tiny/mlc").glob("*-q4f16_1-MLC")
    only(out, f"tiny/mlc/{mlc.name}", "tiny/gguf/f16")
    assert compare("--root", out, "--positions", 100, "--no-html").exit_code == 1
    entries = report(out)
    assert judged(entries["gguf/f16"])
    said = entries["mlc/q4f16_1"]["notes" if place == "localise" else "reasons"]
    assert any(
        type(error).__name__ in line and "test_parity_containment.py" in line for line in said
    )


def test_no_number_in_a_sampled_reply_alone_is_a_fault_in_words(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(prompt: Sequence[int], count: int) -> Task:
        return Task(prompt, count, lambda step, logits: draw(logits * np.float32(np.nan), 0.5))

    monkeypatch.setattr(measure, "sampled", sampled)
    only(out, "tiny/gguf/f16")
    assert compare("--root", out, "--positions", 100, "--no-html").exit_code == 1
    entry = report(out)["gguf/f16"]
    assert entry["reasons"] == ["sampled replies: NaN or infinite logits"]
    assert entry["measurement"]["sampled"] is None
    assert entry["measurement"]["greedy"]["prompts"] > 0


def test_who_ends_the_run_ends_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights_alone, "dequantise", stop)
    only(out, "tiny/gguf/f16")
    with pytest.raises((KeyboardInterrupt, click.Abort, SystemExit)):
        parity_main(
            ["--root", str(out), "--budget", "fast", "--no-footprint"], standalone_mode=False
        )


def test_a_runtime_that_crashes_fails_its_artifact_and_the_others_are_still_judged(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    only(out, "tiny/onnx/fp32", "tiny/gguf/f16")
    assert invoke(parity_main, "--root", out, "--budget", "fast").exit_code == 1
    entries = report(out)
    assert entries["onnx/fp32"]["verdict"] == "FAIL"
    assert "SIGSEGV" in entries["onnx/fp32"]["reasons"][0]
    assert entries["gguf/f16"]["verdict"] == "PASS"


def test_a_crash_of_the_run_itself_fails_its_artifact_and_the_others_are_judged_once(
    out: Path, tmp_path: Path
) -> None:
    """Without a footprint nothing opens it before; without --watch it is the end."""
    (tmp_path / "onnxruntime.py").write_text("import os; os.kill(os.getpid(), 11)")
    only(out, "tiny/onnx/fp32", "tiny/gguf/f16")
    command = [sys.executable, "-m", "runtimes.parity", "--root", str(out), "--budget", "fast"]
    command += ["--no-footprint", "--positions", "100", "--no-html", "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    unwatched = subprocess.run([*command, "--no-watch"], env=env, cwd=ROOT, check=False)
    assert unwatched.returncode == -signal.SIGSEGV
    only(out, "tiny/gguf/f16", "tiny/onnx/fp32")
    command += ["--watch", "--log-json"]
    run = subprocess.run(command, env=env, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 1
    events = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    spent = [(e["subject"], e["phase"]) for e in events if e["event"] == "spent"]
    assert spent.count(("reference", "text")) == 2  # as it crashed once
    assert spent.count(("gguf f16", "text")) == 1
    entries = report(out)
    assert entries["onnx/fp32"]["verdict"] == "FAIL"
    assert "ended by SIGSEGV" in entries["onnx/fp32"]["reasons"][0]
    assert judged(entries["gguf/f16"])


def test_what_is_kept_of_a_comparison_is_exact(tmp_path: Path) -> None:
    values = np.array([0.1, np.nan, -np.inf])
    metrics = PositionMetrics(**dict.fromkeys(ARRAYS, values), further={"own/one": values})
    artifact: Any = SimpleNamespace(subject=tmp_path / "a b.gguf", sha256="0")
    told: list[Any] = []

    def keep(_: Artifact, found: Sequence[PositionMetrics]) -> None:
        told.append(found)

    def compare() -> Compared:
        finished.counted(artifact, [metrics] * 11)
        return compared

    finding = Finding(Cause.WEIGHTS, "text", 3, tensor="w")
    tensor = TensorError("w", np.inf, 0.1, None)
    wrong = Judgement(Verdict.FAIL, ("x",))
    compared = Compared(wrong, measurement(), Weighed((finding,), (tensor,)))
    finished = Finished(tmp_path / "finished", keep)
    assert finished.once(artifact, None, compare) == compared
    again = Finished(tmp_path / "finished", keep).once(artifact, None, NotImplementedError)
    assert again == compared
    first, second = told
    assert len(first) == len(second) == 11
    for made, read in zip(first, second, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(made, name), getattr(read, name))
        np.testing.assert_array_equal(read.further["own/one"], values)
    for path in (tmp_path / "finished").iterdir():  # as a crash leaves them
        path.write_bytes(path.read_bytes()[:-9])
    assert Finished(tmp_path / "finished", None).once(artifact, None, compare) == compared
    # What could not be measured is tried again.
    lost: Any = SimpleNamespace(subject=tmp_path / "lost", sha256="0")
    tries = iter((Compared(wrong), compared))
    assert [finished.once(lost, None, tries.__next__) for _ in range(3)][1:] == [compared, compared]
