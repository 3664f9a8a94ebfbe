"""Quantised ONNX variants: graphs that are valid, compute what their bytes say, and share them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession
from safetensors.numpy import load_file
from transformers import AutoConfig, LlamaForCausalLM

from edgeproof.artifact import Artifact, Precision
from edgeproof.errors import InputError
from export.onnx import FORMAT, folder
from export.onnx.weights import place
from runtimes.formats import dequantise
from runtimes.onnxruntime import open_runtime
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint

pytestmark = pytest.mark.numbers

FILES = {
    "q8": "model_quantized.onnx",
    "int8": "model_int8.onnx",
    "uint8": "model_uint8.onnx",
    "q4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
    "bnb4": "model_bnb4.onnx",
}
UNTIED = {"tie_word_embeddings": False}
# What rounding activations to 8 bits costs, as `distance`.
ROUNDING = 2e-3
# What it may cost with one scale for all activations of a call; and `int8` where a processor's sums
# of two products of 8 bits saturate at 16 bits, as on x86 without VNNI.
WHOLE_CALLS, SATURATED = 5 * ROUNDING, 0.25
# Rows of 80 and 120 end in the middle of a block of 32 or 64, bits of rows in that of NF4.
TAILS = {"hidden_size": 80, "intermediate_size": 120, "head_dim": 32}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{dtype: (dtype, {}, {}) for dtype in FILES},
    **{f"{dtype} untied tails": (dtype, {}, UNTIED | TAILS) for dtype in FILES},
    "q4 other symmetry": ("q4", {"symmetric": True}, TAILS),
    "q4f16 other symmetry": ("q4f16", {"symmetric": True}, TAILS),
    "q4 embedding fp32": ("q4", {"embedding": "fp32"}, {}),
    "q4 embedding fp16": ("q4", {"embedding": "fp16"}, {}),
    "q4 embedding q4": ("q4", {"embedding": "q4"}, TAILS),
    "q4 symmetric embedding q4": ("q4", {"embedding": "q4", "symmetric": True}, TAILS),
    "q4f16 embedding q8": ("q4f16", {"embedding": "q8"}, TAILS),
    "q8 native": ("q8", {"target": "native"}, {}),
    "q8 native untied tails": ("q8", {"target": "native"}, UNTIED | TAILS),
    "q4 native": ("q4", {"target": "native", "embedding": "q4"}, TAILS),
}


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Artifact]:
    dtype, options, changes = CASES[request.param]
    root = tmp_path_factory.mktemp("onnx")
    checkpoint = make_checkpoint(root / "checkpoint", **changes)
    return checkpoint, export_tiny(checkpoint, "onnx", dtype, root, **options)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared difference relative to the mean square: 2 for unrelated logits."""
    return float(np.square(found - expected).mean() / np.square(expected).mean())


def signed_weights_saturate() -> bool:
    """Whether ONNX Runtime's product of uint8 and int8 is not exact on this processor."""
    width = 64
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    weights = numpy_helper.from_array(np.full((width, 16), 127, np.int8), "b")
    taken = helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [1, width])
    given = helper.make_tensor_value_info("c", onnx.TensorProto.INT32, [1, 16])
    graph = helper.make_graph([node], "product", [taken], [given], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((1, width), 255, np.uint8)})
    return bool((product != width * 255 * 127).any())


def file_of(artifact: Artifact) -> str:
    return FILES[artifact.manifest.variant.name.split("-")[0]]


def test_graphs_pass_the_full_checker_and_every_value_has_a_type(
    case: tuple[Path, Artifact],
) -> None:
    _, artifact = case
    for path in (artifact.path / file_of(artifact), artifact.path / "onnx" / file_of(artifact)):
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path, load_external_data=False)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        known = {value.name for value in [*inferred.value_info, *inferred.output]}
        assert {name for node in inferred.node for name in node.output if name} <= known
        names = [node.name for node in inferred.node]
        assert len(set(names)) == len(names)
        used = {name for node in inferred.node for name in node.input}
        assert {item.name for item in inferred.initializer} <= used


def with_weights(checkpoint: Path, weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """PyTorch's logits of a checkpoint's architecture with these weights."""
    model = LlamaForCausalLM(AutoConfig.from_pretrained(checkpoint, attn_implementation="eager"))
    tied = {"lm_head.weight": weights["model.embed_tokens.weight"]}
    model.load_state_dict({k: torch.tensor(v) for k, v in {**tied, **weights}.items()})
    with torch.no_grad():
        return np.asarray(model.eval()(torch.tensor([ids])).logits[0].numpy())


def test_onnxruntime_computes_what_the_stored_weights_say(case: tuple[Path, Artifact]) -> None:
    checkpoint, artifact = case
    ids = np.random.default_rng(3).integers(0, VOCAB, 48).tolist()
    weights = dequantise(artifact)
    assert weights.keys() == load_file(checkpoint / "model.safetensors").keys()
    expected = with_weights(checkpoint, weights, ids)
    name = artifact.manifest.variant.name
    limit = WHOLE_CALLS if "int8" in name else ROUNDING
    if name == "int8" and signed_weights_saturate():
        limit = SATURATED
    for graphs in ("onnx", "."):
        runtime = open_runtime(artifact, 1, folder=graphs)
        logits = runtime.logits(ids)
        assert distance(logits, expected) < limit


def test_a_step_and_a_left_padded_row_give_the_same_as_one_pass(
    case: tuple[Path, Artifact],
) -> None:
    _, artifact = case
    if artifact.manifest.variant.name in ("int8", "uint8"):
        pytest.skip("one scale for all activations of a call: other rows change a row's values")
    runtime = open_runtime(artifact, 1)
    ids = np.random.default_rng(4).integers(0, VOCAB, 20).tolist()
    logits = runtime.logits(ids)
    runtime.start(ids[:-1])
    assert distance(runtime.step(ids[-1]), logits[-1]) < ROUNDING
    padded = runtime.padded_logits([ids, ids[:7]])
    assert distance(padded[1], logits[:7]) < ROUNDING


def test_config_json_and_the_manifest_say_what_is_in_the_folder(
    case: tuple[Path, Artifact],
) -> None:
    checkpoint, artifact = case
    file = file_of(artifact)
    config = json.loads((artifact.path / "config.json").read_text())["transformers.js_config"]
    assert config["use_external_data_format"] == {file: 1}
    dtype = artifact.manifest.variant.name.split("-")[0]
    assert config["kv_cache_dtype"] == {dtype: "float16" if dtype == "q4f16" else "float32"}
    model = onnx.load(artifact.path / "onnx" / file, load_external_data=False)
    places = {
        tuple(entry.value for entry in item.external_data if entry.key in ("offset", "length"))
        for item in model.graph.initializer
        if item.external_data and "rotary" not in item.name
    }
    assert sum(int(length) for _, length in places) == artifact.manifest.weights["bytes"]
    counted = sum(entry["elements"] for entry in artifact.manifest.weights["types"].values())
    source = load_file(checkpoint / "model.safetensors")
    assert counted == sum(value.size for value in source.values())


def test_only_the_native_target_needs_gather_block_quantized(case: tuple[Path, Artifact]) -> None:
    _, artifact = case
    model = onnx.load(artifact.path / "onnx" / file_of(artifact), load_external_data=False)
    native = "native" in artifact.manifest.variant.name
    assert native == any(node.op_type == "GatherBlockQuantized" for node in model.graph.node)


@pytest.mark.parametrize("symmetric", [True, False])
def test_both_targets_compute_the_same(tmp_path: Path, symmetric: bool) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    ids = list(range(40))
    logits, sizes = [], []
    for target in ("web", "native"):
        artifact = export_tiny(
            checkpoint, "onnx", "q4", tmp_path, embedding="q4", target=target, symmetric=symmetric
        )
        logits.append(open_runtime(artifact, 1).logits(ids))
        sizes.append((artifact.path / "onnx" / "model_q4.onnx_data").stat().st_size)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert sizes[0] == sizes[1]


def test_a_graph_over_several_data_files_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    whole = export_tiny(checkpoint, "onnx", "q4", tmp_path / "whole", target="native")
    monkeypatch.setattr(folder, "place", lambda tensors, file: place(tensors, file, 30_000))
    split = export_tiny(checkpoint, "onnx", "q4", tmp_path / "split", target="native")
    chunks = sorted(path.name for path in (split.path / "onnx").glob("*_data*"))
    config = json.loads((split.path / "config.json").read_text())["transformers.js_config"]
    assert len(chunks) > 2
    assert config["use_external_data_format"] == {"model_q4.onnx": len(chunks)}
    ids = list(range(30))
    for graphs in ("onnx", "."):
        logits = [open_runtime(a, 1, folder=graphs).logits(ids) for a in (whole, split)]
        np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        ("q8", {"symmetric": True}, "--symmetric.*q8 has no 4-bit"),
        ("bnb4", {"symmetric": False}, "bnb4 has no 4-bit blocks; choose q4 or q4f16"),
        ("fp16", {"embedding": "q8"}, "--embedding: fp16 stores every weight as fp16"),
        ("q4f16", {"embedding": "fp32"}, "q4f16 computes in fp16"),
    ],
)
def test_options_without_effect_are_refused(
    dtype: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FORMAT.variant(dtype, **options)


def test_options_are_part_of_the_recipe_and_of_the_name() -> None:
    plain = FORMAT.variant("q8")
    assert FORMAT.variant("q8", embedding="q8", target="web") is plain
    smaller = FORMAT.variant("q8", embedding="q4")
    assert (smaller.name, smaller.precision) == ("q8-embedding-q4", Precision.LOW_BIT)
    assert FORMAT.variant("q8", embedding="fp16").precision == Precision.EIGHT_BIT
    native = FORMAT.variant("q8", target="native")
    assert native.name == "q8-native"
    assert native.recipe != plain.recipe
    # A float embedding is looked up alike everywhere: the same artifact.
    floats = [FORMAT.variant("q4", embedding="fp16", target=t) for t in ("web", "native")]
    assert floats[0] == floats[1]
    assert FORMAT.variant("fp32", target="native") is FORMAT.variant("fp32")
    both = [FORMAT.variant("q4", symmetric=value).name for value in (True, False)]
    assert len(set(both)) == 2
    assert "q4" in both
