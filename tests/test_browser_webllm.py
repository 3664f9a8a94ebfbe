"""MLC weights in the stock WebLLM, up to the model library that npm does not have."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest

from edgeproof.artifact import Artifact, open_artifact
from runtimes.browser.chromium import without_gpu
from runtimes.browser.harness_page import open_page
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chromium", "web_packages")]

TEXTS = ["The capital of France is 42", "<|im_start|>user\n1 2<|im_end|>", " naïve 🙂\n\n"]
MODEL = "SmolLM2-135M-Instruct"


def stored(artifact: Artifact) -> dict[str, dict[str, object]]:
    """The arrays that tensor-cache.json lists, cut out of the shards here."""
    index = json.loads((artifact.path / "tensor-cache.json").read_text())
    found: dict[str, dict[str, object]] = {}
    for shard in index["records"]:
        data = (artifact.path / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            start = record["byteOffset"]
            found[record["name"]] = {
                "shape": record["shape"],
                "dtype": record["dtype"],
                "sha256": hashlib.sha256(data[start : start + record["nbytes"]]).hexdigest(),
            }
    return found


def check(artifact: Artifact) -> None:
    with contextlib.ExitStack() as closing:
        page, site = open_page(closing, artifact, without_gpu(), "webllm")
        read = page.call("run", ["read", TEXTS])
    assert read["refusal"] == "MissingModelError"
    config = json.loads((artifact.path / "mlc-chat-config.json").read_text())
    assert read["config"] == config
    runtime = open_runtime(artifact, 1)
    assert read["ids"] == [runtime.tokenize(text) for text in TEXTS]
    runtime.close()
    assert read["arrays"] == stored(artifact)
    # A file that is asked for is asked for once: the library's cache keeps it.
    asked = [path for path in site.requests if path.endswith(".bin")]
    assert sorted(asked) == sorted(f"/artifact/{p.name}" for p in artifact.path.glob("*.bin"))


@pytest.mark.parametrize("variant", ["q4f16_1", "q0f16"])
def test_webllm_reads_a_tiny_models_config_tokenizer_and_arrays(
    variant: str, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    check(export_tiny(checkpoint, "mlc", variant, tmp_path))


def test_webllm_reads_the_real_models(real_artifacts: Path) -> None:
    check(open_artifact(real_artifacts / MODEL / "mlc" / f"{MODEL}-q4f16_1-MLC"))
