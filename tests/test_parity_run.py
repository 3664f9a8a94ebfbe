"""`python -m runtimes.parity` end to end on a tiny model: reports, exit codes, broken artifacts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from junitparser import JUnitXml

from export.__main__ import main as export_main
from runtimes.onnxruntime import OnnxRuntime
from runtimes.parity import run as parity_run
from runtimes.parity import tokenizer
from runtimes.parity.__main__ import main as parity_main
from tests.tiny import make_checkpoint
from tests.tolerance import REORDERED_KL, ROUNDED_KL

ROOT = Path(__file__).parent.parent
STRINGS = tokenizer.COUNT
PLAN = """
[[variant]]
format = "onnx"
dtype = "fp32"

[[variant]]
format = "gguf"
dtype = "f16"

[[variant]]
format = "mlc"
dtype = "q4f16_1"
allow-degraded = true
"""


def invoke(command: Any, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def compare(*arguments: str | Path) -> Result:
    return invoke(parity_main, *arguments, "--budget", "fast", "--no-footprint")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    (folder / "plan.toml").write_text(PLAN)
    model = make_checkpoint(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        result = invoke(
            export_main, "--plan", folder / "plan.toml", "-m", model, "-o", folder / "out"
        )
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def out(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exports that a test may damage; captures and compiled code are shared.

    Tokenizers are compared on a few strings: only the first test looks at how many.
    """
    monkeypatch.setattr(tokenizer, "COUNT", 100)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(exported / "cache"))
    return Path(shutil.copytree(exported / "out", tmp_path / "out"))


def report(out: Path) -> dict[str, Any]:
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    return {f"{a['format']}/{a['variant']}": a for a in raw["artifacts"]}


def test_good_exports_pass_and_four_bit_is_flagged_but_allowed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "COUNT", STRINGS)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(out / "summary.md"))
    result = invoke(
        parity_main, "--root", out, "--threads", 2, "--budget", "fast",
        "--junit", out / "p.xml", "--markdown", out / "p.md",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    entries = report(out)
    assert entries["onnx/fp32"]["verdict"] == "PASS"
    assert entries["onnx/fp32"]["measurement"]["weights"] is None, "fp32 weights are exact"
    assert entries["gguf/f16"]["verdict"] == "PASS"
    assert entries["mlc/q4f16_1"]["verdict"] == "DEGRADED"
    assert entries["mlc/q4f16_1"]["accepted"] is True
    (damage,) = entries["mlc/q4f16_1"]["localisation"]["findings"]
    assert damage["cause"] == "rounding"
    assert len(entries["mlc/q4f16_1"]["localisation"]["tensors"]) == 10
    assert entries["onnx/fp32"]["localisation"] is None
    for entry in entries.values():
        # llama.cpp and TVM keep f16 products and caches of these.
        assert entry["measurement"]["greedy"]["cache_kl"] < ROUNDED_KL
        assert entry["measurement"]["tokenizer_strings"] >= 5000
        assert entry["measurement"]["tokenizer_mismatches"] == 0
        assert entry["measurement"]["chat_template"]["fault"] is None
        assert entry["measurement"]["chat_template"]["chats"] > 10
        assert entry["measurement"]["footprint"]["peak_mb"] > 0
        worst = entry["measurement"]["worst_positions"]
        assert worst[0]["kl"] == entry["measurement"]["max_kl"]
    assert "DEGRADED (allowed)" in result.output
    schema = json.loads((ROOT / "docs/parity.schema.json").read_text("utf-8"))
    raw = json.loads((out / "tiny/parity.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(raw)
    for item in raw["artifacts"]:
        counts = item["measurement"]["kl_histogram"]["counts"]
        assert sum(counts) == raw["reference"]["positions"]
        assert len(item["measurement"]["greedy"]["replies"]) > 1
    assert "mlc q4f16_1" in (out / "tiny/parity.html").read_text("utf-8")
    document = JUnitXml.fromfile(str(out / "p.xml"))
    assert (document.tests, document.failures) == (3, 0)
    assert (out / "summary.md").read_text("utf-8") == (out / "p.md").read_text("utf-8")


def test_a_degraded_artifact_that_is_required_exits_1(exported: Path, out: Path) -> None:
    (artifact,) = (out / "tiny/mlc").glob("*-q4f16_1-MLC")
    result = compare(
        artifact, "--checkpoint", exported / "tiny",
        "--json", out / "tiny/parity.json",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "did not pass" in result.output
    assert report(out)["mlc/q4f16_1"]["accepted"] is False


def test_a_part_of_the_text_is_compared_on_request(out: Path) -> None:
    result = compare("--root", out, "--positions", 300, "--allow-degraded")
    assert result.exit_code == 0, result.output
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    short = raw["artifacts"][0]
    assert short["verdict"] == "INCONCLUSIVE"
    assert any("clear_top1: errors in 0 of " in reason for reason in short["reasons"])
    assert all("positions more (--budget " in reason for reason in short["reasons"])
    assert 300 <= raw["reference"]["positions"] < 1000
    assert raw["artifacts"][0]["measurement"]["greedy"]["prompts"] < 6


def test_another_runtime_needs_explicit_artifacts(out: Path) -> None:
    assert invoke(parity_main, "--root", out, "--runtime", "webgpu").exit_code == 2


def test_a_plan_can_tighten_a_gate(out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    record["models"][0]["artifacts"] = [{"path": "tiny/gguf/f16", "allow_degraded": False}]
    record["gates"] = {"fp16": {"mean_kl": 1e-12}}
    (out / "run.json").write_text(json.dumps(record))
    assert compare("--root", out).exit_code == 1
    assert "mean_kl" in report(out)["gguf/f16"]["reasons"][0]


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
    [a_short_context, no_layers, no_json, no_graph, a_looping_template, an_unreadable_manifest],
)
def test_nothing_that_an_artifact_contains_ends_the_run(
    out: Path, damage: Callable[[Path], None]
) -> None:
    only(out, "tiny/onnx/fp32", "tiny/gguf/f16")
    damage(out)
    result = compare("--root", out, "--positions", 100, "--no-html")
    assert result.exit_code == 1, result.output
    entries = report(out)
    assert entries["gguf/f16"]["verdict"] == "PASS"
    if damage is an_unreadable_manifest:  # nothing tells what it is: there is no entry
        assert result.stderr.count("not an edgeproof manifest") == 2
    else:
        assert entries["onnx/fp32"]["verdict"] == "FAIL"
        assert entries["onnx/fp32"]["reasons"][0]


class Panic(BaseException):
    """As one of a library written in Rust."""


@pytest.mark.parametrize("error", [KeyError("bits"), IndexError(), Panic("index out of bounds")])
@pytest.mark.parametrize("place", ["dequantise", "compare_metadata", "localise"])
def test_whatever_a_reader_raises_fails_its_artifact_only(
    out: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    original = getattr(parity_run, place)

    def fails(subject: Any, *rest: Any, **options: Any) -> Any:
        artifact = getattr(subject, "artifact", subject)
        if artifact.manifest.variant.format == "mlc":
            raise error
        return original(subject, *rest, **options)

    monkeypatch.setattr(parity_run, place, fails)
    (mlc,) = (out / "tiny/mlc").glob("*-q4f16_1-MLC")
    only(out, f"tiny/mlc/{mlc.name}", "tiny/gguf/f16")
    assert compare("--root", out, "--positions", 100, "--no-html").exit_code == 1
    entries = report(out)
    assert entries["gguf/f16"]["verdict"] == "PASS"
    said = entries["mlc/q4f16_1"]["notes" if place == "localise" else "reasons"]
    assert any(type(error).__name__ in line and "test_parity_run.py" in line for line in said)


def test_who_ends_the_run_ends_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity_run, "dequantise", stop)
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


def test_a_crash_of_the_run_itself_fails_its_artifact_and_the_others_are_still_judged(
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
    assert subprocess.run([*command, "--watch"], env=env, cwd=ROOT, check=False).returncode == 1
    entries = report(out)
    assert entries["onnx/fp32"]["verdict"] == "FAIL"
    assert "ended by SIGSEGV" in entries["onnx/fp32"]["reasons"][0]
    assert entries["gguf/f16"]["verdict"] == "PASS"


def test_a_batch_without_its_mask_fails(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntime._run

    def unmasked(self: OnnxRuntime, outputs: Any, ids: Any, mask: Any, past: Any, keep: int) -> Any:
        whole = np.ones_like(mask) if len(mask) > 1 else mask
        return run(self, outputs, ids, whole, past, keep)

    monkeypatch.setattr(OnnxRuntime, "_run", unmasked)
    only(out, "tiny/onnx/fp32")
    assert compare("--root", out).exit_code == 1
    (entry,) = report(out).values()
    assert entry["verdict"] == "FAIL"
    assert "left padding" in entry["reasons"][0]


PLAIN = "\n\n".join(f"Paragraph {n}. " + "Rain fell on the old harbour. " * 45 for n in range(8))


@pytest.mark.parametrize("broken", [False, True])
def test_the_kv_cache_is_checked_on_a_text_without_chats(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        monkeypatch.setattr(OnnxRuntime, "step", lambda self, token: self.start([token]))
    (tmp_path / "plain.txt").write_text(PLAIN)
    only(out, "tiny/onnx/fp32")
    result = compare("--root", out, "--text", tmp_path / "plain.txt", "--no-html")
    (entry,) = report(out).values()
    assert entry["measurement"]["greedy"] is None
    omitted = [note for note in entry["notes"] if "replies were not compared" in note]
    assert len(omitted) == 1 or broken
    kl = entry["measurement"]["estimates"]["cache_kl"]["value"]
    if broken:
        assert result.exit_code == 1
        assert entry["verdict"] == "FAIL"
        assert entry["reasons"][0].startswith("KV cache: step by step differs")
        assert kl > 0.02
    else:
        assert result.exit_code == 0, result.output
        assert kl < REORDERED_KL


def only(out: Path, *paths: str) -> None:
    """Leave only these artifacts in the run record."""
    record = json.loads((out / "run.json").read_text())
    record["models"][0]["artifacts"] = [{"path": p, "allow_degraded": False} for p in paths]
    (out / "run.json").write_text(json.dumps(record))


def test_several_models_get_a_page_over_all_and_no_single_json(out: Path) -> None:
    only(out, "tiny/gguf/f16")
    record = json.loads((out / "run.json").read_text())
    record["models"].append({**record["models"][0], "label": "twin"})
    (out / "run.json").write_text(json.dumps(record))
    refused = compare("--root", out, "--json", out / "p.json")
    assert refused.exit_code == 2
    assert "--json is for one model" in refused.output
    result = compare("--root", out, "--positions", 100, "--allow-degraded")
    assert result.exit_code == 0, result.output
    assert "All models" in result.output
    over_all = (out / "parity.html").read_text("utf-8")
    assert 'href="tiny/parity.html"' in over_all
    assert 'href="twin/parity.html"' in over_all


def test_nothing_exported_is_bad_input(tmp_path: Path) -> None:
    result = compare("--root", tmp_path)
    assert result.exit_code == 2
    assert "run `python -m export`" in result.output


def test_explicit_artifacts_need_their_checkpoint(out: Path) -> None:
    assert compare(out / "tiny/gguf/f16").exit_code == 2
    gone = compare(out / "tiny/gguf/f16", "--checkpoint", out / "nowhere")
    assert gone.exit_code == 2
    assert len(gone.output.splitlines()) == 1
