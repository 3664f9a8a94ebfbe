"""`make verify`: the exports load in the libraries that users load them with, and answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact.run_record import load_run_record
from export.onnx.traced.environment import optimum_bin
from runtimes.registry import open_reference
from tests.consumers.environment import genai_python, run_node
from tests.replies import greedy_reply

pytestmark = pytest.mark.slow

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"


DTYPES = ["fp32", "fp16", "q8", "q4", "q4f16"]


@pytest.fixture(scope="module")
def answers(real_artifacts: Path) -> dict[str, dict[str, Any]]:
    """What transformers.js answers to one question with each dtype, all in one process.

    The reference is sure of every token of its answer: it is by more than 1 nat.
    """
    question = "What is the capital city of Italy? Answer in one sentence."
    folder = real_artifacts / MODEL / "onnx"
    lines = run_node("generate.mjs", folder, ",".join(DTYPES), "12", question)
    return {item["dtype"]: item for item in map(json.loads, lines.splitlines())}


@pytest.mark.parametrize("dtype", DTYPES)
def test_transformers_js_answers_and_prefills_one_row(
    answers: dict[str, dict[str, Any]], dtype: str
) -> None:
    assert "Rome" in answers[dtype]["text"]
    assert answers[dtype]["prefill_logits"][0] == 1


def test_transformers_js_gives_pytorchs_greedy_tokens_with_fp16(
    real_artifacts: Path, answers: dict[str, dict[str, Any]]
) -> None:
    (model,) = json.loads((real_artifacts / "run.json").read_text())["models"]
    reference = open_reference(Path(model["checkpoint"]), 2)
    expected = [int(reference.start(answers["fp16"]["prompt_ids"]).argmax())]
    while len(expected) < len(answers["fp16"]["ids"]):
        expected.append(int(reference.step(expected[-1]).argmax()))
    assert answers["fp16"]["ids"] == expected


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
    assert result["ids"] == greedy_reply(reference, result["prompt_ids"], 20)
