"""Nothing that an artifact contains ends a parity run: it FAILs, and the others are judged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
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


def copies(artifact: Path, names: Iterable[str]) -> dict[str, Path]:
    """Copies of an artifact beside it, each a variant of that name."""
    made = {name: artifact.with_name(name) for name in names}
    for name, copy in made.items():
        shutil.copytree(artifact, copy)
        rewrite_manifest(copy, lambda raw, name=name: raw["variant"].update(name=name))
    return made


def below(out: Path, made: Iterable[Path]) -> list[str]:
    """As the run record names them."""
    return [path.relative_to(out).as_posix() for path in made]


def rewrite_manifest(artifact: Path, change: Callable[[Any], None]) -> None:
    path = artifact / "edgeproof.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def flip_a_weight_bit(artifact: Path) -> None:
    path = next(artifact.glob("*.gguf"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 0x40
    path.write_bytes(data)


def truncate(artifact: Path) -> None:
    path = next(artifact.glob("*.gguf"))
    path.write_bytes(path.read_bytes()[:-64])


def made_from_other_inputs(artifact: Path) -> None:
    rewrite_manifest(artifact, lambda raw: raw["model"]["inputs"][0].update(sha256="0" * 64))


def test_broken_artifacts_fail_and_the_others_are_still_judged(out: Path) -> None:
    damages = {
        flip_a_weight_bit: "SHA-256",
        truncate: "wrong size",
        made_from_other_inputs: "made from other inputs",
    }
    made = copies(out / "tiny/gguf/f16", (damage.__name__ for damage in damages))
    only(out, *below(out, made.values()), "tiny/onnx/fp32")
    for damage in damages:
        damage(made[damage.__name__])
    assert compare("--root", out).exit_code == 1
    entries = report(out)
    for damage, reason in damages.items():
        entry = entries[f"gguf/{damage.__name__}"]
        assert entry["verdict"] == "FAIL", damage
        assert reason in entry["reasons"][0], damage
    assert entries["onnx/fp32"]["verdict"] == "PASS"


def judged(entry: dict[str, Any]) -> bool:
    """Whether a good export was measured without an error, on too few positions to decide."""
    reasons = [reason for reason in entry["reasons"] if "give 1,000" not in reason]
    return entry["verdict"] == "INCONCLUSIVE" and all("errors in 0 of" in line for line in reasons)


def a_short_context(artifact: Path) -> None:
    rewrite(artifact, "config.json", lambda raw: raw | {"max_position_embeddings": 9})


def no_layers(artifact: Path) -> None:
    rewrite(artifact, "config.json", lambda raw: {"vocab_size": raw["vocab_size"]})


def no_json(artifact: Path) -> None:
    rewrite(artifact, "config.json", lambda raw: [])


def no_graph(artifact: Path) -> None:
    replace_file(artifact, "onnx/model.onnx", b"\xff" * 100)


def a_looping_template(artifact: Path) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    rewrite(artifact, "tokenizer_config.json", lambda raw: raw | {"chat_template": loop})


def an_unreadable_manifest(artifact: Path) -> None:
    (artifact / "edgeproof.json").write_text("{}")


def an_unknown_format(artifact: Path) -> None:
    """As of a package that has been removed since."""
    rewrite_manifest(artifact, lambda raw: raw["variant"].update(format="gone"))


def rewrite(artifact: Path, name: str, change: Callable[[Any], Any]) -> None:
    raw = json.loads((artifact / name).read_text())
    replace_file(artifact, name, json.dumps(change(raw)).encode())


def replace_file(artifact: Path, name: str, data: bytes) -> None:
    """Change a file and its hash in the manifest: what a wrong exporter would have written."""
    (artifact / name).write_bytes(data)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def change(raw: Any) -> None:
        for item in raw["outputs"]:
            if item["path"] == name:
                item.update(facts)

    rewrite_manifest(artifact, change)


def test_nothing_that_artifacts_contain_ends_the_run(out: Path) -> None:
    told = (a_short_context, no_layers, no_json, no_graph, a_looping_template)
    unread = {
        an_unreadable_manifest: "not an edgeproof manifest",
        an_unknown_format: "nothing here reads the format 'gone'",
    }
    damages = (*told, *unread)
    made = copies(out / "tiny/onnx/fp32", (damage.__name__ for damage in damages))
    only(out, *below(out, made.values()), "tiny/gguf/f16")
    for damage in damages:
        damage(made[damage.__name__])
    result = compare("--root", out, "--positions", 100, "--no-html")
    assert result.exit_code == 1, result.output
    entries = report(out)
    assert judged(entries["gguf/f16"])
    for damage in told:
        entry = entries[f"onnx/{damage.__name__}"]
        assert entry["verdict"] == "FAIL", damage
        assert entry["reasons"][0], damage
    # Nothing tells what they are: no entries, but a line of each.
    items = json.loads((out / "tiny/parity.json").read_text())["unreadable"]
    assert [item["folder"] for item in items] == [f"onnx/{damage.__name__}" for damage in unread]
    for item, said in zip(items, unread.values(), strict=True):
        assert said in item["reason"]
    assert f"of {len(damages) + 1} artifacts did not pass" in result.stderr


class Panic(BaseException):
    """As one of a library written in Rust."""


@pytest.mark.parametrize(
    ("module", "place"),
    [(weights_alone, "dequantise"), (parity_run, "compare_metadata"), (localised, "localise")],
    ids=["dequantise", "compare_metadata", "localise"],
)
def test_whatever_a_reader_raises_fails_its_artifact_only(
    out: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, place: str
) -> None:
    errors = {
        type(error).__name__: error
        for error in (KeyError("bits"), IndexError(), Panic("index out of bounds"))
    }
    original = getattr(module, place)

    def fails(subject: Any, *rest: Any, **options: Any) -> Any:
        variant = getattr(subject, "artifact", subject).manifest.variant
        if variant.format == "mlc":
            raise errors[variant.name]
        return original(subject, *rest, **options)

    monkeypatch.setattr(module, place, fails)
    (mlc,) = (out / "tiny/mlc").glob("*-q4f16_1-MLC")
    made = copies(mlc, errors)
    only(out, *below(out, made.values()), "tiny/gguf/f16")
    assert compare("--root", out, "--positions", 100, "--no-html").exit_code == 1
    entries = report(out)
    assert judged(entries["gguf/f16"])
    for name in errors:
        said = entries[f"mlc/{name}"]["notes" if place == "localise" else "reasons"]
        assert any(name in line and "test_parity_containment.py" in line for line in said), name


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
    artifact: Any = SimpleNamespace(subject=tmp_path / "a b.gguf", sha256="0", check=lambda: None)
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
    (arrays,) = (tmp_path / "finished").glob("*.npz")
    arrays.unlink()  # as when who removes the folder is killed
    told.clear()
    assert finished.once(artifact, None, compare) == compared
    assert [len(made) for made in told] == [11]
    # What could not be measured is tried again.
    lost: Any = SimpleNamespace(subject=tmp_path / "lost", sha256="0", check=lambda: None)
    tries = iter((Compared(wrong), compared))
    assert [finished.once(lost, None, tries.__next__) for _ in range(3)][1:] == [compared, compared]
