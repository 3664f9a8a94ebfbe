"""MLX folders in mlx_lm's own model: logits, KV cache, hidden states, and what mlx_lm answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.formats import dequantise, reader_of
from runtimes.protocol import MarkedTextRuntime, RewindingRuntime, TextRuntime
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.family_checks import check_logits, some_ids
from tests.recovered import make_recovered, mixed
from tests.tiny import FAMILIES, OTHERS, change_json, make_checkpoint, write_weights
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

mlx_lm = pytest.importorskip("mlx_lm", reason='pip install "edgeproof[mlx]"')
LONG = "The capital of France is Paris, and 42 is a number. " * 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("mlx") / "checkpoint")


@pytest.fixture(scope="module")
def quantised(checkpoint: Path) -> Artifact:
    return export_tiny(checkpoint, "mlx", "q4", checkpoint.parent, group_size="32")


@pytest.mark.parametrize("family", {**FAMILIES, **OTHERS})
def test_logits_are_transformers(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **{**FAMILIES, **OTHERS}[family])
    check_logits(export_tiny(folder, "mlx", "f32", tmp_path), folder, OTHER_RUNTIME)


@pytest.mark.parametrize("variant", ["f16", "bf16", "q8", "q6", "q5", "q4", "q3", "mxfp4"])
def test_logits_are_those_of_the_values_that_our_reader_finds(
    checkpoint: Path, tmp_path: Path, variant: str
) -> None:
    """Whatever rounding costs: transformers computes the same on the dequantised weights."""
    options = {"group_size": "32"} if variant.startswith("q") else {}
    artifact = export_tiny(checkpoint, "mlx", variant, tmp_path, **options)
    check_logits(artifact, dequantised(artifact, checkpoint, tmp_path / "read"), OTHER_RUNTIME)


def dequantised(artifact: Artifact, checkpoint: Path, folder: Path) -> Path:
    """A checkpoint of the values that an artifact has."""
    make_checkpoint(folder)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    write_weights(folder, dict(dequantise(artifact)))
    return folder


def test_a_mixture_of_bits_is_opened(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", mixed)
    check_logits(export_tiny(folder, "mlx", "auto", tmp_path), folder, OTHER_RUNTIME)


def test_hidden_states_are_pytorchs(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_tiny(checkpoint, "mlx", "f32", tmp_path)
    ids = some_ids()
    reference = open_reference(checkpoint, 1)
    expected = reference.states(ids)
    reference.close()
    found = reader_of(artifact).states(artifact, ids, 1)
    shared = found.keys() & expected.keys()
    assert {name for name in expected if not name.endswith("q_rope")} <= shared
    for name in shared:
        assert relative_error(found[name], expected[name]) < OTHER_RUNTIME, name


def test_text_and_stops(quantised: Artifact) -> None:
    runtime = open_runtime(quantised, 1)
    assert isinstance(runtime, TextRuntime)
    assert runtime.stop_tokens == {2}
    assert runtime.detokenize(runtime.tokenize(LONG)) == LONG
    runtime.close()


@pytest.fixture
def replies(quantised: Artifact) -> Iterator[tuple[list[int], list[int]]]:
    """Greedy tokens of ours and of mlx_lm.generate's own loop."""
    import mlx.core as mx

    prompt, count = some_ids()[:20], 12
    runtime = open_runtime(quantised, 1)
    logits, ours = runtime.start(prompt), []
    for _ in range(count):
        ours.append(int(logits.argmax()))
        logits = runtime.step(ours[-1])
    runtime.close()
    mx.set_default_device(mx.cpu)
    model, tokenizer = mlx_lm.load(str(quantised.path))
    model.set_dtype(mx.float32)
    tokenizer.eos_token_ids = set()
    steps = mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=count)
    yield ours, [int(step.token) for step in steps]


def test_mlx_lm_itself_answers_the_same(replies: tuple[list[int], list[int]]) -> None:
    ours, theirs = replies
    assert ours == theirs


def test_code_of_the_folder_is_refused(quantised: Artifact, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (quantised.path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    config = quantised.path / "config.json"
    before = config.read_bytes()
    try:
        change_json(config, model_file="evil.py")
        with pytest.raises(InputError, match="model_file names code of its own"):
            open_runtime(quantised, 1)
    finally:
        config.write_bytes(before)
    assert not marker.exists()


def test_a_folder_that_mlx_lm_refuses_is_one_line(quantised: Artifact) -> None:
    config = quantised.path / "config.json"
    before = config.read_bytes()
    try:
        config.write_text(json.dumps({**json.loads(before), "model_type": "nothing"}))
        with pytest.raises(InputError, match="mlx_lm cannot load it") as caught:
            open_runtime(quantised, 1)
    finally:
        config.write_bytes(before)
    assert "\n" not in str(caught.value)


def test_the_cache_holds_what_was_given(quantised: Artifact) -> None:
    """A prompt in pieces, and a new one after it."""
    runtime = open_runtime(quantised, 1)
    ids = some_ids()
    expected = runtime.logits(ids)
    runtime.chunk = 7  # type: ignore[attr-defined]
    np.testing.assert_allclose(runtime.logits(ids), expected, atol=1e-4)
    np.testing.assert_allclose(runtime.start(ids[:30]), expected[29], atol=1e-4)
    np.testing.assert_allclose(runtime.step(ids[30]), expected[30], atol=1e-4)
    runtime.close()


def test_it_goes_on_from_a_shared_beginning(quantised: Artifact) -> None:
    runtime = open_runtime(quantised, 1)
    assert isinstance(runtime, RewindingRuntime)
    assert isinstance(runtime, MarkedTextRuntime)
    ids = some_ids()
    first, second = ids, [*ids[:30], *ids[:12]]
    expected = runtime.logits(second)
    runtime.start(first)
    runtime.step(7)
    assert runtime.rewind(30) == 30
    rows = np.concatenate([block.copy() for block in runtime.logit_blocks(second, 33, 30)])
    assert relative_error(rows, expected[33:]) <= REORDERED_FLOAT32
    assert (runtime.begin_token, runtime.special_tokens) == (1, {0, 1, 2})
    runtime.close()
