from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (NumPy then knows bfloat16 by name)
import numpy as np
import pytest

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from edgeproof.families.rope import Llama3Scaling, Rope, scaled_frequencies
from runtimes import registry
from runtimes.tvm import open_runtime
from tests import tiny
from tests.exported import export_tiny
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

pytest.importorskip("tvm")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

THREADS = 2
# More than one prefill chunk, and no multiple of the chunk, the tile or the cache's blocks.
LENGTH = 151
# Nothing here divides by 16 lanes or by a group of 32.
AWKWARD = {
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "vocab_size": 391,
}
# Changes of tiny.config by scheme.
MODELS: dict[str, dict[str, Any]] = {
    "q0f16": AWKWARD,
    "q0f32": {**AWKWARD, "tie_word_embeddings": False},
    "q4f16_1": AWKWARD,
    "q0bf16": AWKWARD,
    "q4f16_0": {**AWKWARD, "tie_word_embeddings": False},
    "q4f16_2": {**AWKWARD, "tie_word_embeddings": False},
    "q4f32_1": {**AWKWARD, "tie_word_embeddings": False},
    "q4bf16_1": AWKWARD,
    "q3f16_0": {**AWKWARD, "tie_word_embeddings": False},
    "q3f16_1": AWKWARD,
}
BITS_AND_GROUP = {"4": (4, 32), "3": (3, 40)}
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the shared fixture: these tests share their compiled libraries."""
    monkeypatch.setenv("EDGEPROOF_CACHE", str(cache))


Export = Callable[..., Artifact]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Export:
    root = tmp_path_factory.mktemp("models")

    def build(scheme: str, **changes: Any) -> Artifact:
        path = root / f"{scheme}{changes}"
        if (path / "out").exists():
            (folder,) = (path / "out" / "tiny" / "mlc").iterdir()
            return open_artifact(folder)
        changes = {**MODELS[scheme], **changes}
        return export_tiny(
            tiny.make_checkpoint(path / "checkpoint", **changes), "mlc", scheme, path / "out"
        )

    return build


@pytest.fixture
def damaged(export: Export, tmp_path: Path) -> Path:
    """A copy of an artifact, to be damaged."""
    return Path(shutil.copytree(export("q4f16_1").path, tmp_path / "artifact"))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def stored_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The shards' arrays; float32 ones widened from the bfloat16 that they are stored in."""
    arrays = {}
    for shard in json.loads((folder / "tensor-cache.json").read_text())["records"]:
        data = (folder / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            raw = data[record["byteOffset"] : record["byteOffset"] + record["nbytes"]]
            if record["dtype"] == "float32" and record["format"] == "f32-to-bf16":
                array = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                array = np.frombuffer(raw, record["dtype"])
            arrays[record["name"]] = array.reshape(record["shape"])
    return arrays


def dequantized(scheme: str, name: str, words: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(code − m) × scale in the scales' dtype: [out, in]; the columns may be padded."""
    bits, group = BITS_AND_GROUP[scheme[1]]
    if scheme.endswith("_0") and "embed_tokens" not in name:
        words, scales = words.T, scales.T
    codes = (words[:, :, None] >> (bits * np.arange(32 // bits, dtype=np.uint32))) % (1 << bits)
    middle = (1 << (bits - 1)) - 1
    offsets = (codes.reshape(len(words), -1).astype(np.int32) - middle).astype(scales.dtype)
    return offsets * np.repeat(scales, group, axis=1)


def reference_logits(artifact: Artifact, ids: list[int]) -> np.ndarray:
    """PyTorch in float32 on the weights that the shards hold."""
    checkpoint = artifact.path.parents[2].parent / "checkpoint"
    config = transformers.LlamaConfig.from_pretrained(checkpoint)
    model = transformers.LlamaForCausalLM(config).eval()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {}
    arrays = stored_arrays(artifact.path)
    for name, array in arrays.items():
        module, kind = name.rsplit(".", 1)
        if kind == "q_scale":
            continue
        weight = array
        if kind == "q_weight":
            scheme = artifact.manifest.variant.name
            weight = dequantized(scheme, name, array, arrays[f"{module}.q_scale"])
        parent, leaf = f".{module}".rsplit(".", 1)
        parts = [f"{parent}.{part}.weight"[1:] for part in FUSED.get(leaf, (leaf,))]
        split = np.cumsum([shapes[part][0] for part in parts])[:-1]
        for part, rows in zip(parts, np.split(weight, split), strict=True):
            values = rows[:, : shapes[part][1]] if rows.ndim == 2 else rows
            state[part] = torch.from_numpy(values.astype(np.float32))
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())


def some_ids(count: int = LENGTH, seed: int = 0) -> list[int]:
    return [int(x) for x in np.random.default_rng(seed).integers(0, tiny.VOCAB, count)]


@pytest.mark.parametrize("scheme", MODELS)
def test_logits_are_pytorchs_on_the_stored_weights(scheme: str, export: Export) -> None:
    artifact = export(scheme)
    runtime = open_runtime(artifact, THREADS)
    logits = runtime.logits(some_ids())
    expected = reference_logits(artifact, some_ids())
    assert logits.dtype == np.float32
    assert logits.shape == expected.shape
    assert relative_error(logits, expected) < OTHER_RUNTIME


def test_rope_scaling_is_what_the_artifact_states(export: Export) -> None:
    artifact = export("q0f16", rope_scaling=tiny.LLAMA3_ROPE)
    expected = reference_logits(artifact, some_ids())
    assert relative_error(open_runtime(artifact, 2).logits(some_ids()), expected) < OTHER_RUNTIME
    unscaled = reference_logits(export("q0f16"), some_ids())
    assert relative_error(unscaled, expected) > 0.01


@pytest.mark.parametrize("prompt", [1, 2, 6, 97, 150])
@pytest.mark.parametrize("scheme", ["q0f16", "q4f16_1"])
def test_steps_through_the_kv_cache_give_the_rows_of_logits(
    scheme: str, prompt: int, export: Export
) -> None:
    runtime = open_runtime(export(scheme), THREADS)
    ids = some_ids(min(LENGTH, prompt + 20))
    expected = runtime.logits(ids)
    rows = [runtime.start(ids[:prompt]), *(runtime.step(token) for token in ids[prompt:])]
    assert rows[0].shape == (expected.shape[1],)
    assert relative_error(np.stack(rows), expected[prompt - 1 :]) < REORDERED_FLOAT32


def test_a_sequence_leaves_nothing_behind(export: Export) -> None:
    first, second = (open_runtime(export("q4f16_1"), THREADS) for _ in range(2))
    first.start(some_ids(seed=1))
    first.step(3)
    np.testing.assert_array_equal(first.logits(some_ids(50)), second.logits(some_ids(50)))
    np.testing.assert_array_equal(first.start(some_ids(9)), second.start(some_ids(9)))


def test_a_prompt_may_fill_the_context_but_not_exceed_it(export: Export) -> None:
    runtime = open_runtime(export("q0f16"), THREADS)
    assert np.isfinite(runtime.logits(some_ids(256))).all()
    for call in (runtime.logits, runtime.start):
        with pytest.raises(ValueError, match="at most 256"):
            call(some_ids(257))
    runtime.start(some_ids(255))
    runtime.step(1)
    with pytest.raises(ValueError, match="at most 256"):
        runtime.step(1)


def libraries(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (cache / "tvm").iterdir()}


def test_a_second_open_compiles_nothing_whatever_the_depth(
    export: Export, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_runtime(export("q4f16_1"), THREADS)
    before = libraries(cache)
    monkeypatch.setattr("tvm.relax.build", None)
    open_runtime(export("q4f16_1"), THREADS)
    open_runtime(export("q4f16_1", num_hidden_layers=5), THREADS)
    assert libraries(cache) == before


def test_with_a_damaged_library_and_no_compiler_the_decoder_runs_from_memory(
    export: Export, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_runtime(export("q4f16_1"), THREADS).logits([1, 2, 3])
    (tmp_path / "tvm").mkdir()
    for name in libraries(cache):
        (tmp_path / "tvm" / name).write_bytes(b"\x7fELF")
    before = libraries(tmp_path)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    actual = open_runtime(export("q4f16_1"), THREADS).logits([1, 2, 3])
    np.testing.assert_array_equal(actual, expected)
    assert libraries(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_rotary_tables_have_the_scaling_that_a_family_states() -> None:
    from runtimes.tvm.runtime import rotation_tables

    rope = Rope(5e5, Llama3Scaling(8.0, 1.0, 4.0, 64))
    expected = np.arange(50, dtype=np.float32)[:, None] * scaled_frequencies(16, rope)
    cosine, sine = (table.numpy() for table in rotation_tables(16, rope, 50))
    np.testing.assert_array_equal(cosine, np.cos(expected))
    np.testing.assert_array_equal(sine, np.sin(expected))
    assert not np.allclose(cosine, rotation_tables(16, Rope(5e5), 50)[0].numpy(), atol=1e-2)


def test_the_callers_processors_stay_as_they_were(export: Export) -> None:
    before = os.sched_getaffinity(0)
    open_runtime(export("q0f16"), THREADS).logits(some_ids())
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("num_hidden_layers", "3"),
        ("rms_norm_eps", None),
        ("num_key_value_heads", 2),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 2.0}),
    ],
)
def test_a_nonsense_config_is_refused(key: str, value: object, damaged: Path) -> None:
    edit_json(damaged / "mlc-chat-config.json", lambda c: c["model_config"].update({key: value}))
    with pytest.raises(InputError, match=r"mlc-chat-config\.json"):
        open_runtime(open_artifact(damaged), THREADS)


@pytest.mark.parametrize("key", ["quantization", "model_type"])
def test_an_unknown_scheme_or_family_is_refused(key: str, damaged: Path) -> None:
    edit_json(damaged / "mlc-chat-config.json", lambda config: config.update({key: "q9"}))
    with pytest.raises(InputError, match="'q9'"):
        open_runtime(open_artifact(damaged), THREADS)


def test_a_config_that_is_not_json_is_refused(damaged: Path) -> None:
    (damaged / "mlc-chat-config.json").write_text("{")
    with pytest.raises(InputError, match="not an MLC chat config"):
        open_runtime(open_artifact(damaged), THREADS)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.down_proj.q_scale"])
def test_a_missing_parameter_is_named(name: str, damaged: Path) -> None:
    def remove(index: Any) -> None:
        for shard in index["records"]:
            shard["records"] = [r for r in shard["records"] if r["name"] != name]

    edit_json(damaged / "tensor-cache.json", remove)
    with pytest.raises(InputError, match=f"{name} is missing"):
        open_runtime(open_artifact(damaged), THREADS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "stranger"}, "is missing"),
        ({"shape": [1, 2]}, "damaged"),
        ({"dtype": "float64"}, "damaged"),
        ({"byteOffset": -4}, "damaged"),
        ({"byteOffset": 1 << 40}, "damaged"),
        ({"nbytes": None}, "damaged|malformed"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], message: str, damaged: Path) -> None:
    edit_json(damaged / "tensor-cache.json", lambda i: i["records"][0]["records"][0].update(change))
    with pytest.raises(InputError, match=message):
        open_runtime(open_artifact(damaged), THREADS)


def test_layers_beyond_the_config_are_refused(damaged: Path) -> None:
    edit_json(
        damaged / "mlc-chat-config.json", lambda c: c["model_config"].update(num_hidden_layers=2)
    )
    with pytest.raises(InputError, match=r"unexpected parameter model\.layers\.2\."):
        open_runtime(open_artifact(damaged), THREADS)


def test_a_truncated_or_missing_shard_is_named(damaged: Path) -> None:
    shard = damaged / "params_shard_0.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"params_shard_0\.bin"):
        open_runtime(open_artifact(damaged), THREADS)
    shard.unlink()
    with pytest.raises(InputError, match=r"params_shard_0\.bin"):
        open_runtime(open_artifact(damaged), THREADS)


def test_missing_tvm_says_what_to_install(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = export("q0f16")
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(InputError, match=r'pip install "edgeproof\[tvm\]"'):
        registry.open_runtime(artifact, THREADS)
