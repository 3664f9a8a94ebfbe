"""Files that other makers' own programs wrote a moment ago: Optimum's and GenAI's builder's."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from export.onnx.traced.environment import optimum_bin
from runtimes.audit.__main__ import main as audit_main
from runtimes.parity import statistics, tokenizer
from tests import tiny
from tests.caches import new_cache
from tests.consumers.environment import genai_python
from tests.parity_runs import invoke

pytestmark = pytest.mark.slow

TEXTS = [{"text": text[:80]} for text in tiny.long_texts(2)]


@dataclass(frozen=True)
class Made:
    """What an audit said of the folders, by their names."""

    files: dict[str, dict[str, Any]]
    artifacts: dict[str, dict[str, Any]]
    output: str


def run(*command: str | Path) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def make(folder: Path, checkpoint: Path) -> list[Path]:
    builder = [genai_python(), "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
    made = []
    for dtype in ("fp32", "int4"):
        made.append(folder / f"genai-{dtype}")
        cache = folder / "genai-cache"
        run(*builder, "-p", dtype, "-i", checkpoint, "-o", made[-1], "-c", cache)
    made.append(folder / "optimum")
    task = ("--task", "text-generation-with-past")
    optimum = optimum_bin() / "optimum-cli"
    run(optimum, "export", "onnx", "--model", checkpoint, *task, made[-1])
    rounded = folder / "optimum-int8"
    run(optimum, "onnxruntime", "quantize", "--avx2", "--onnx_model", made[-1], "-o", rounded)
    return [*made, rounded]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("makers")
    checkpoint = tiny.make_checkpoint(folder / "model")
    made = make(folder, checkpoint)
    text, target = folder / "text.jsonl", folder / "audit.json"
    text.write_text("".join(json.dumps(line) + "\n" for line in TEXTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 200)
        patch.setattr(statistics, "RESAMPLES", 50)
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        done = invoke(
            audit_main, *made, "--against", checkpoint, "--text", text, "--no-footprint",
            "--no-html", "--whole-text", "--json", target,
        )  # fmt: skip
    assert target.exists(), done.output
    said = json.loads(target.read_text("utf-8"))
    return Made(
        {item["name"]: item for item in said["files"]},
        {item["variant"]: item for item in said["parity"]["artifacts"]},
        done.output,
    )


@pytest.mark.parametrize("name", ["genai-fp32", "optimum"])
def test_a_float_graph_computes_what_pytorch_does(audited: Made, name: str) -> None:
    found = audited.artifacts[f"{name}/model.onnx"]
    assert found["verdict"] != "FAIL", found["reasons"]
    assert found["precision"] == "fp32"
    assert found["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6
    assert not audited.files[f"{name}/model.onnx"]["broken"]


def test_the_builder_s_four_bits_are_rounding_and_nothing_else(audited: Made) -> None:
    found = audited.artifacts["genai-int4/model.onnx"]
    assert found["verdict"] != "FAIL", found["reasons"]
    assert found["precision"] == "4-bit"
    assert found["measurement"]["estimates"]["mean_kl"]["value"] > 0


def test_optimum_s_eight_bits_are_run_and_called_what_they_are(audited: Made) -> None:
    (name,) = (name for name in audited.files if name.startswith("optimum-int8/"))
    found = audited.artifacts[name]
    assert found["verdict"] != "FAIL", found["reasons"]
    assert found["precision"] == "8-bit"
    assert found["measurement"]["estimates"]["mean_kl"]["value"] > 0
    assert any("weights were not compared one by one" in note for note in found["notes"])


def test_all_files_of_a_folder_are_hashed_with_its_data(audited: Made) -> None:
    for name, item in audited.files.items():
        paths = {file["path"] for file in item["files"]}
        assert {name.partition("/")[2], "tokenizer.json"} <= paths, name
        assert item["says"]["context"] == "256"
