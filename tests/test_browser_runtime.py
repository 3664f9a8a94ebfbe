"""Exports in transformers.js in Chromium, where both are: its logits, its cache, its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from runtimes.formats.onnx import BROWSER
from runtimes.registry import open_runtime
from tests.demo_page import PACKAGES
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint

pytest.importorskip("playwright", reason='pip install "edgeproof[browser]"')

from runtimes.browser.runtime import TransformersJs
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, relative_error

IDS = [1, 9, 300, 7, 41, 120, 3, 5]


@pytest.fixture(scope="module")
def artifact(
    chromium: Path, web_packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    root = tmp_path_factory.mktemp("tiny")
    return export_tiny(make_checkpoint(root / "checkpoint"), "onnx", "fp32", root)


@pytest.fixture(scope="module")
def runtime(artifact: Artifact) -> Iterator[TransformersJs]:
    opened = open_runtime(artifact, 1, "browser")
    assert isinstance(opened, TransformersJs)
    yield opened
    opened.close()


def test_logits_are_onnxruntimes_at_every_position(
    artifact: Artifact, runtime: TransformersJs
) -> None:
    expected = open_runtime(artifact, 1).logits(IDS)
    got = runtime.logits(IDS)
    assert got.shape == (len(IDS), VOCAB)
    assert got.dtype == np.float32
    assert relative_error(got, expected) < OTHER_RUNTIME
    assert "wasm" in runtime.device


def test_step_by_step_through_the_librarys_cache(runtime: TransformersJs) -> None:
    whole = runtime.logits(IDS)
    row = runtime.start(IDS[:3])
    for position, token in enumerate(IDS[3:], 3):
        assert relative_error(row, whole[position - 1]) < REORDERED_FLOAT32
        row = runtime.step(token)
    assert relative_error(row, whole[-1]) < REORDERED_FLOAT32


def test_the_librarys_own_loop_writes_the_same_greedy_tokens(runtime: TransformersJs) -> None:
    row, expected = runtime.start(IDS), []
    for _ in range(5):
        expected.append(int(row.argmax()))
        row = runtime.step(expected[-1])
    assert runtime.generate(IDS, 5) == expected


def test_the_tokenizer_is_the_librarys_and_agrees(
    artifact: Artifact, runtime: TransformersJs
) -> None:
    expected = open_runtime(artifact, 1)
    for text in ["The capital of France", "<|im_start|>user\n12 345<|im_end|>", " naïve 🙂\t"]:
        assert runtime.tokenize(text) == expected.tokenize(text)


def test_the_librarys_known_fault_is_still_there_and_nothing_else_is_excused(
    artifact: Artifact, runtime: TransformersJs
) -> None:
    """When transformers.js splits " ½" as Hugging Face does, `splits_otherwise` can go."""
    joining = copied(artifact, "joining")
    path = joining.path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["ĠÂ"] = VOCAB - 1  # the space and the first byte of ½
    tokenizer["model"]["merges"] = [["Ġ", "Â"]]
    path.write_text(json.dumps(tokenizer))
    expected = open_runtime(joining, 1)
    got = open_again(joining)
    assert expected.tokenize("a b") == got.tokenize("a b")
    assert expected.tokenize("a ½") != got.tokenize("a ½")
    got.close()
    assert runtime.splits_otherwise("a ½")
    assert runtime.splits_otherwise("صفحة ١٢")
    assert not runtime.splits_otherwise("12 naïve 🙂 №")


def copied(artifact: Artifact, name: str) -> Artifact:
    folder = artifact.path.parent / name
    shutil.copytree(artifact.path, folder)
    return open_artifact(folder)


def open_again(artifact: Artifact) -> TransformersJs:
    """With npm's files of the user's cache, where a test has its own and empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtimes.browser.harness_page.web_packages", lambda say: PACKAGES)
        opened: TransformersJs = BROWSER.load().open_runtime(artifact, 1)
        return opened


def test_a_graph_that_cannot_be_loaded_is_one_line(artifact: Artifact) -> None:
    broken = copied(artifact, "broken")
    (broken.path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"transformers.js cannot load it: [^\n]*$"):
        open_again(broken)
