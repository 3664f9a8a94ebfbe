"""`make verify`: the exports load in the libraries that users load them with, and answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from export.artifact.run_record import load_run_record
from export.onnx.traced.environment import optimum_bin
from runtimes.registry import open_reference
from tests.consumers.environment import genai_python, run_node

pytestmark = pytest.mark.slow

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_transformers_js_answers_and_prefills_one_row(real_artifacts: Path, dtype: str) -> None:
    artifact = real_artifacts / MODEL / "onnx" / dtype
    result = json.loads(run_node("generate.mjs", artifact, dtype))
    assert "Paris" in result["text"]
    assert result["prefill_logits"][0] == 1


@pytest.mark.parametrize(("dtype", "file"), [("fp32", "model.onnx"), ("fp16", "model_fp16.onnx")])
def test_optimum_answers_alone_and_in_a_left_padded_batch(
    real_artifacts: Path, dtype: str, file: str
) -> None:
    script = Path(__file__).parent / "consumers" / "optimum_generate.py"
    artifact = real_artifacts / MODEL / "onnx" / dtype
    output = subprocess.run(
        [optimum_bin() / "python", script, artifact, file],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    result = json.loads(output.splitlines()[-1])
    assert "Paris" in result["text"]
    count = len(result["alone_ids"])
    assert result["padded_ids"][:count] == result["alone_ids"]


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_genai_answers_with_the_reference_s_greedy_tokens(real_artifacts: Path, dtype: str) -> None:
    script = Path(__file__).parent / "consumers" / "genai_generate.py"
    output = subprocess.run(
        [genai_python(), script, real_artifacts / MODEL / "onnx" / dtype],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    result = json.loads(output)
    (model,) = load_run_record(real_artifacts).models
    reference = open_reference(Path(model.checkpoint), threads=2)
    question = [{"role": "user", "content": QUESTION}]
    assert result["prompt_ids"] == reference.tokenize(reference.render_chat(question))
    assert [result["ids"]] == reference.greedy_replies([result["prompt_ids"]], 20)
