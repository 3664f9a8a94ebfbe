"""A planted fault is named: its layer, part of the decoder, tensor or key; a clean file is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from export.artifact import Artifact
from runtimes.parity.localise import Cause, Component, Localisation, Subject, localise
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import make_checkpoint, write_weights

pytest.importorskip("torch")
IDS = [1, *np.random.default_rng(0).integers(3, 384, 30).tolist()]
UNTIED = {"tie_word_embeddings": False, "num_key_value_heads": 4}


def localised(artifact: Artifact, checkpoint: Path) -> Localisation:
    return localise(Subject(artifact, checkpoint, open_reference(checkpoint, 1), IDS, 1), None)


@dataclass(frozen=True)
class Planted:
    """A checkpoint, and a place for one that is wrong in some tensors or keys."""

    checkpoint: Path
    folder: Path

    def export(self, form: str, variant: str, **options: object) -> Artifact:
        return export_tiny(self.checkpoint, form, variant, self.folder, **options)

    def wrong(
        self,
        form: str,
        variant: str,
        change: Callable[[dict[str, np.ndarray]], None] = lambda tensors: None,
        **config: object,
    ) -> Artifact:
        """Export a changed copy of the checkpoint."""
        other = make_checkpoint(self.folder / "wrong", **{**UNTIED, **config})
        tensors = dict(load_file(self.checkpoint / "model.safetensors"))
        change(tensors)
        write_weights(other, tensors)
        return export_tiny(other, form, variant, self.folder)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(make_checkpoint(tmp_path / "checkpoint", **UNTIED), tmp_path)


CLEAN = [
    ("onnx", "fp32", {}),
    ("onnx", "fp16", {"graph": "portable"}),
    ("onnx", "int8", {}),
    ("onnx", "q4f16", {}),
    ("gguf", "f32", {}),
    ("gguf", "bf16", {}),
    ("gguf", "q4_0", {}),
    ("mlc", "q0f16", {}),
    ("mlc", "q4f16_1", {}),
]


@pytest.mark.parametrize(("form", "variant", "options"), CLEAN)
def test_a_sound_file_is_not_blamed(
    planted: Planted, form: str, variant: str, options: dict[str, object]
) -> None:
    found = localised(planted.export(form, variant, **options), planted.checkpoint)
    assert [item.cause for item in found.findings] in ([Cause.ROUNDING], [Cause.NONE]), found
    assert len(found.layer_errors) == 5


Q1, K1 = (f"model.layers.1.self_attn.{part}_proj.weight" for part in "qk")
DOWN2 = "model.layers.2.mlp.down_proj.weight"


def transpose(tensors: dict[str, np.ndarray]) -> None:
    tensors[Q1] = np.ascontiguousarray(tensors[Q1].T)


def swap_q_k(tensors: dict[str, np.ndarray]) -> None:
    tensors[Q1], tensors[K1] = tensors[K1], tensors[Q1]


def scale(tensors: dict[str, np.ndarray]) -> None:
    tensors[DOWN2] = tensors[DOWN2] * np.float32(1.2)


def zero(tensors: dict[str, np.ndarray]) -> None:
    tensors["model.norm.weight"] = np.zeros_like(tensors["model.norm.weight"])


def shift(tensors: dict[str, np.ndarray]) -> None:
    tensors[DOWN2] = np.roll(tensors[DOWN2], 4)


def interleave(tensors: dict[str, np.ndarray]) -> None:
    halves = tensors[Q1].reshape(4, 2, -1, 64)
    tensors[Q1] = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(64, 64)


def damage_a_scale(tensors: dict[str, np.ndarray]) -> None:
    changed = tensors[DOWN2].copy()
    changed[5, 32:64] *= 8
    tensors[DOWN2] = changed


WRONG = [
    (transpose, Q1, Component.Q_PROJ, 1, "transposed"),
    (swap_q_k, Q1, Component.Q_PROJ, 1, "layers.1.self_attn.k_proj"),
    (scale, DOWN2, Component.DOWN_PROJ, 2, "1.2 times"),
    (zero, "model.norm.weight", Component.FINAL_NORM, None, "all zeros"),
    (shift, DOWN2, Component.DOWN_PROJ, 2, "shifted by 4"),
    (interleave, Q1, Component.Q_PROJ, 1, "pairs were halves"),
    (damage_a_scale, DOWN2, Component.DOWN_PROJ, 2, "row 5"),
]


@pytest.mark.parametrize(("form", "variant"), [("onnx", "q4"), ("gguf", "q8_0")])
@pytest.mark.parametrize(("change", "tensor", "component", "layer", "hint"), WRONG)
def test_a_wrong_tensor_is_named(
    planted: Planted,
    form: str,
    variant: str,
    change: Callable[[dict[str, np.ndarray]], None],
    tensor: str,
    component: Component,
    layer: int | None,
    hint: str,
) -> None:
    cause = localised(planted.wrong(form, variant, change), planted.checkpoint).cause
    assert (cause.cause, cause.tensor) == (Cause.WEIGHTS, tensor), cause
    assert (cause.layer, cause.component) == (layer, component)
    assert hint in cause.text


KEYS = [
    ("gguf", "f16", {"rope_theta": 10000.0}, "llama.rope.freq_base", Component.ROPE),
    ("gguf", "q8_0", {"rms_norm_eps": 1e-2}, "llama.attention.layer_norm_rms_epsilon",
     Component.INPUT_NORM),
    ("onnx", "fp16", {"rope_theta": 10000.0}, "config.json rope_theta", Component.ROPE),
    ("onnx", "q4", {"rms_norm_eps": 1e-2}, "config.json rms_norm_eps", Component.INPUT_NORM),
]  # fmt: skip


@pytest.mark.parametrize(("form", "variant", "config", "key", "component"), KEYS)
def test_a_wrong_key_is_named(
    planted: Planted,
    form: str,
    variant: str,
    config: dict[str, object],
    key: str,
    component: Component,
) -> None:
    found = localised(planted.wrong(form, variant, **config), planted.checkpoint)
    assert (found.cause.cause, found.cause.key) == (Cause.METADATA, key), found
    assert found.cause.component is component
    # What is run shows it too, in the first layer.
    graph = [item for item in found.findings if item.cause is Cause.GRAPH]
    assert [(item.layer, item.component) for item in graph] == [(0, component)]


def edit_graph(artifact: Artifact, edit: Callable[[onnx.GraphProto], None]) -> None:
    path = next((artifact.path / "onnx").glob("*.onnx"))
    model = onnx.load(path, load_external_data=False)
    edit(model.graph)
    path.write_bytes(model.SerializeToString())


def node(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(item for item in graph.node if item.name == name)


def other_activation(graph: onnx.GraphProto) -> None:
    node(graph, "/model/layers.1/mlp/act_fn/Sigmoid").op_type = "Tanh"


def swap_sine_and_cosine(graph: onnx.GraphProto) -> None:
    values = node(graph, "/model/layers.2/self_attn/GroupQueryAttention").input
    values[7], values[8] = values[8], values[7]


def drop_residual(graph: onnx.GraphProto) -> None:
    inputs = node(
        graph, "/model/layers.1/post_attention_layernorm/SkipSimplifiedLayerNormalization"
    ).input
    inputs[0] = inputs[1]


GRAPHS = [
    (other_activation, 1, Component.ACTIVATION),
    (swap_sine_and_cosine, 2, Component.ROPE),
    (drop_residual, 1, Component.O_PROJ),
]


@pytest.mark.parametrize("variant", ["fp32", "q4"])
@pytest.mark.parametrize(("edit", "layer", "component"), GRAPHS)
def test_a_wrong_step_of_the_graph_is_named(
    planted: Planted,
    variant: str,
    edit: Callable[[onnx.GraphProto], None],
    layer: int,
    component: Component,
) -> None:
    artifact = planted.export("onnx", variant)
    edit_graph(artifact, edit)
    found = localised(artifact, planted.checkpoint)
    cause = found.cause
    assert (cause.cause, cause.layer, cause.component) == (Cause.GRAPH, layer, component), found
    own = [item.own for item in found.layer_errors]
    assert own.index(max(own)) == layer + 1  # the embedding is first
