"""`python -m runtimes.parity` end to end on a tiny model: reports, exit codes, broken artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from junitparser import JUnitXml

from runtimes.onnxruntime import OnnxRuntime
from runtimes.parity import tokenizer
from runtimes.parity.__main__ import main as parity_main
from tests.parity_runs import STRINGS, compare, copied, export_plan, invoke, only, report
from tests.tolerance import REORDERED_KL, ROUNDED_KL

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_plan(tmp_path_factory.mktemp("parity"))


@pytest.fixture
def out(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(exported, tmp_path, monkeypatch)


def test_good_exports_pass_and_four_bit_is_flagged_but_allowed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "COUNT", STRINGS)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(out / "summary.md"))
    result = invoke(
        parity_main, "--root", out, "--threads", 2, "--budget", "fast",
        "--junit", out / "p.xml", "--markdown", out / "p.md", "--whole-text",
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
        "--json", out / "tiny/parity.json", "--no-html",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "did not pass" in result.output
    assert report(out)["mlc/q4f16_1"]["accepted"] is False


def test_a_part_of_the_text_is_compared_on_request(out: Path, tmp_path: Path) -> None:
    (tmp_path / "installed").write_text("0\n")
    options = ("--allow-degraded", "--no-html", "--await", "onnx", tmp_path / "installed")
    result = compare("--root", out, "--positions", 300, *options)
    assert result.exit_code == 0, result.output
    assert "[3/3] onnx fp32" in result.stderr, "an awaited runtime's artifacts come last"
    assert list(report(out)) == ["onnx/fp32", "gguf/f16", "mlc/q4f16_1"]
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    short = raw["artifacts"][0]
    assert short["verdict"] == "INCONCLUSIVE"
    assert any("clear_top1: errors in 0 of " in reason for reason in short["reasons"])
    assert all("positions more (--budget " in reason for reason in short["reasons"])
    assert 300 <= raw["reference"]["positions"] < 1000
    assert 1 <= raw["artifacts"][0]["measurement"]["greedy"]["prompts"] < 12


def test_who_gets_no_runtime_keeps_the_verdicts_of_the_others(out: Path, tmp_path: Path) -> None:
    (tmp_path / "installed").write_text("2\n")
    result = compare(
        "--root", out, "--positions", 300, "--allow-degraded", "--no-html", "--await", "gguf",
        tmp_path / "installed",
    )  # fmt: skip
    assert result.exit_code == 1
    entries = report(out)
    assert entries["gguf/f16"]["verdict"] == "FAIL"
    assert entries["gguf/f16"]["reasons"] == [
        f"not run: its runtime could not be installed ({tmp_path / 'installed'} has the exit code)"
    ]
    assert entries["onnx/fp32"]["measurement"]["positions"] >= 300


def test_only_a_format_can_be_awaited(out: Path, tmp_path: Path) -> None:
    done = invoke(parity_main, "--root", out, "--await", "ggml", tmp_path / "installed")
    assert (done.exit_code, "the format 'ggml'; known: onnx" in done.output) == (2, True)


def test_another_runtime_needs_explicit_artifacts(out: Path) -> None:
    assert invoke(parity_main, "--root", out, "--runtime", "webgpu").exit_code == 2


def test_a_plan_can_tighten_a_gate(out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    record["models"][0]["artifacts"] = [{"path": "tiny/gguf/f16", "allow_degraded": False}]
    record["gates"] = {"fp16": {"mean_kl": 1e-12}}
    (out / "run.json").write_text(json.dumps(record))
    assert compare("--root", out, "--no-html").exit_code == 1
    assert "mean_kl" in report(out)["gguf/f16"]["reasons"][0]


def test_a_batch_without_its_mask_fails(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntime._run

    def unmasked(self: OnnxRuntime, outputs: Any, ids: Any, mask: Any, past: Any, keep: int) -> Any:
        whole = np.ones_like(mask) if len(mask) > 1 else mask
        return run(self, outputs, ids, whole, past, keep)

    monkeypatch.setattr(OnnxRuntime, "_run", unmasked)
    only(out, "tiny/onnx/fp32")
    assert compare("--root", out, "--positions", 100, "--no-html").exit_code == 1
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
