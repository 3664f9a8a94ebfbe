"""`make verify-webgpu`: the real float16 model on WebGPU in Chromium, compared and in the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.sources import resolve
from runtimes.browser.chromium import with_gpu
from runtimes.demo.build import build
from runtimes.registry import open_reference
from tests.demo_page import opened, playwright_started
from tests.replies import greedy_reply
from tests.required import MODEL_LIBRARY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("chromium", "web_packages", "webgpu_command"),
]

ROOT = Path(__file__).parent.parent
MODEL = "SmolLM2-135M-Instruct"
# A software GPU takes seconds for a step, and minutes for the first one of a new machine.
POSITIONS = "40"
# A WebLLM library of q4f16_1 of your own, compiled by mlc_llm; none is on any registry.
LIBRARY = os.environ.get("EDGEPROOF_MODEL_LIB")
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fp16")
    run = [sys.executable, "-m", "export.onnx", "--dtype", "fp16", "--out", str(out)]
    subprocess.run(run, cwd=ROOT, check=True)
    return out / MODEL / "onnx" / "fp16"


def test_transformers_js_misses_no_gate_of_float16_on_a_gpu(artifact: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "runtimes.parity", artifact, "--runtime", "browser-webgpu",
            "--positions", POSITIONS, "--checkpoint", resolve("bundled", None).path,
            "--json", tmp_path / "parity.json", "--allow-degraded",
        ],
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 0
    (item,) = json.loads((tmp_path / "parity.json").read_text())["artifacts"]
    # Nothing is bad, and 40 positions are too few to call it good.
    assert item["verdict"] == "INCONCLUSIVE"
    assert any("clear_top1: errors in 0 of" in reason for reason in item["reasons"])
    measured = item["measurement"]
    assert "WebGPU with shader-f16" in measured["runtime"]
    assert measured["positions"] >= int(POSITIONS)
    assert measured["tokenizer_mismatches"] == 0
    assert measured["greedy"]["identical"] == measured["greedy"]["prompts"] > 0


def test_the_demo_answers_on_webgpu_with_pytorchs_greedy_tokens(
    artifact: Path, tmp_path: Path
) -> None:
    build(tmp_path / "site", [artifact], print)
    with (
        playwright_started() as started,
        opened(started, tmp_path / "site", with_gpu(), tmp_path / "profile") as page,
    ):
        page.load("onnx/fp16")
        assert "ready on WebGPU" in page.text("status")
        answer = page.ask(QUESTION)
        ids = page.ids()
        page.screenshot("onnx-fp16-webgpu", 1280, "dark")
        assert page.elsewhere == []
    assert "Paris" in answer
    reference = open_reference(resolve("bundled", None).path, threads=2)
    prompt = reference.tokenize(reference.render_chat([{"role": "user", "content": QUESTION}]))
    assert ids == greedy_reply(reference, prompt, 20)


@pytest.mark.skipif(
    LIBRARY is None, reason=f"{MODEL_LIBRARY}: EDGEPROOF_MODEL_LIB=FILE has WebLLM answer"
)
def test_webllm_answers_with_a_model_library(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "export.mlc", "--dtype", "q4f16_1", "--out", str(tmp_path)]
    subprocess.run([*run, "--model-lib", str(LIBRARY)], cwd=ROOT, check=True)
    build(tmp_path / "site", [tmp_path / MODEL / "mlc" / f"{MODEL}-q4f16_1-MLC"], print)
    with (
        playwright_started() as started,
        opened(started, tmp_path / "site", with_gpu(), tmp_path / "profile") as page,
    ):
        page.load("mlc/q4f16_1")
        assert page.text("problem") == ""
        assert "Paris" in page.ask(QUESTION)
