"""llama.cpp adapter: a growing context, a silent log, and llama.cpp's own words in refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from edgeproof.llama_cpp_params import crashes_in_amx
from runtimes import llamacpp
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint

pytestmark = pytest.mark.numbers

CONTEXT = 1100


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("gguf")
    checkpoint = make_checkpoint(root / "checkpoint", max_position_embeddings=CONTEXT)
    return export_tiny(checkpoint, "gguf", "f32", root)


@pytest.fixture
def runtime(artifact: Artifact) -> Iterator[llamacpp.LlamaCpp]:
    opened = llamacpp.open_runtime(artifact, 2)
    yield opened
    opened.close()


def test_the_cache_moves_into_a_longer_context(runtime: llamacpp.LlamaCpp) -> None:
    ids = np.random.default_rng(0).integers(0, VOCAB, CONTEXT).tolist()
    edge = llamacpp.FIRST_CONTEXT
    grown = [runtime.start(ids[: edge - 2]), *map(runtime.step, ids[edge - 2 : edge + 4])]
    long_enough = [runtime.start(ids[: edge - 2]), *map(runtime.step, ids[edge - 2 : edge + 4])]
    assert np.array_equal(grown, long_enough)
    assert runtime.logits(ids).shape == (CONTEXT, VOCAB)


def test_a_sequence_longer_than_the_model_is_refused(runtime: llamacpp.LlamaCpp) -> None:
    with pytest.raises(ValueError, match=f"at most {CONTEXT}"):
        runtime.start([1] * (CONTEXT + 1))


def test_ids_outside_the_vocabulary_are_refused(runtime: llamacpp.LlamaCpp) -> None:
    with pytest.raises(ValueError, match="token ids"):
        runtime.start([VOCAB])


def test_threads_do_not_change_the_logits(artifact: Artifact) -> None:
    ids = list(range(20))
    results = []
    for threads in (1, 2):
        opened = llamacpp.open_runtime(artifact, threads)
        results.append(opened.logits(ids))
        opened.close()
    assert np.array_equal(*results)


def test_nothing_is_printed(artifact: Artifact, capfd: pytest.CaptureFixture[str]) -> None:
    opened = llamacpp.open_runtime(artifact, 1)
    opened.start([1] * 600)
    opened.step(2)
    opened.close()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_log_callback_of_others_is_put_back(artifact: Artifact) -> None:
    seen: list[bytes] = []

    @llamacpp.llama_cpp.llama_log_callback
    def listen(level: int, text: bytes, _: object) -> None:
        seen.append(text)

    previous, data = llamacpp.log_callback()
    llamacpp.llama_cpp.llama_log_set(listen, None)
    try:
        llamacpp.open_runtime(artifact, 1).close()
        assert seen == []
        llamacpp.llama_cpp.llama_model_load_from_file(
            b"/no/such/file", llamacpp.llama_cpp.llama_model_default_params()
        )
        assert seen
    finally:
        llamacpp.llama_cpp.llama_log_set(previous, data)


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.9])
def test_a_truncated_file_is_refused_with_the_reason(
    artifact: Artifact, tmp_path: Path, keep: float
) -> None:
    shutil.copytree(artifact.path, tmp_path / "copy")
    copy = open_artifact(tmp_path / "copy")
    data = copy.file(".gguf").read_bytes()
    copy.file(".gguf").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"\.gguf: llama\.cpp cannot load it: \w+") as caught:
        llamacpp.open_runtime(copy, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "crashes"), [("AVX2 = 1 | AMX_INT8 = 1 |", True), ("CPU :", False)]
)
def test_code_for_amx_is_not_used(said: str, *, crashes: bool) -> None:
    assert crashes_in_amx(said) is crashes
