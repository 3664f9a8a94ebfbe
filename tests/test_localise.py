"""A planted fault is named: its layer, part of the decoder, tensor or key; a clean file is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.run_record import load_run_record
from runtimes.parity.localise import Cause, Component, Localisation, Subject, localise
from runtimes.parity.localise.errors import relative_error, weight_error
from runtimes.parity.localise.hints import hint
from runtimes.parity.localise.replay import cache_fault, tokenizer_fault
from runtimes.registry import open_reference
from runtimes.weights.fused import Heads
from tests.exported import export_tiny
from tests.tiny import FAMILIES, make_checkpoint, write_weights
from tests.tolerance import OTHER_RUNTIME

pytestmark = pytest.mark.numbers

IDS = [1, *np.random.default_rng(0).integers(3, 384, 30).tolist()]
Q1, K1, V1 = (f"model.layers.1.self_attn.{part}_proj.weight" for part in "qkv")
NORM1 = "model.layers.1.input_layernorm.weight"
DOWN2 = "model.layers.2.mlp.down_proj.weight"
UNTIED = {"tie_word_embeddings": False, "num_key_value_heads": 4}


def localised(artifact: Artifact, checkpoint: Path, *, trace: bool = True) -> Localisation:
    subject = Subject(artifact, checkpoint, open_reference(checkpoint, 1), IDS, 1)
    return localise(subject, None, trace=trace)


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
]


@pytest.mark.parametrize(("form", "variant", "options"), CLEAN)
def test_a_sound_file_is_not_blamed(
    planted: Planted, form: str, variant: str, options: dict[str, object]
) -> None:
    found = localised(planted.export(form, variant, **options), planted.checkpoint)
    assert [item.cause for item in found.findings] in ([Cause.ROUNDING], [Cause.NONE]), found
    assert len(found.layer_errors) == 5


def test_mlc_is_traced_and_read_too(planted: Planted) -> None:
    sound = localised(planted.export("mlc", "q4f16_1"), planted.checkpoint)
    assert [item.cause for item in sound.findings] == [Cause.ROUNDING], sound
    assert max(item.own for item in sound.layer_errors) < OTHER_RUNTIME, "TVM is in float32"
    wrong = localised(planted.wrong("mlc", "q4f16_1", transpose), planted.checkpoint, trace=False)
    assert (wrong.cause.cause, wrong.cause.tensor) == (Cause.WEIGHTS, Q1)
    other = planted.wrong("mlc", "q4f16_1", rope_theta=10000.0)
    cause = localised(other, planted.checkpoint, trace=False).cause
    assert (cause.key, cause.component) == (
        "model_config.position_embedding_base", Component.ROPE,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["biases", "qwen3", "llama3 rope", "wide heads"])
@pytest.mark.parametrize("form", ["gguf", "onnx"])
def test_every_family_is_traced(tmp_path: Path, form: str, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    found = localised(export_tiny(checkpoint, form, "fp32", tmp_path), checkpoint)
    assert [item.cause for item in found.findings] == [Cause.NONE], found
    assert max(item.total for item in found.layer_errors) < OTHER_RUNTIME


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


def raise_norm(tensors: dict[str, np.ndarray]) -> None:
    tensors[NORM1] = tensors[NORM1] + np.float32(1)


def leave_norm_out(tensors: dict[str, np.ndarray]) -> None:
    tensors[NORM1] = np.ones_like(tensors[NORM1])


def shift_heads(tensors: dict[str, np.ndarray]) -> None:
    tensors[V1] = np.roll(tensors[V1], 16, axis=0)


WRONG = [
    (raise_norm, NORM1, Component.INPUT_NORM, 1, "values +1"),
    (leave_norm_out, NORM1, Component.INPUT_NORM, 1, "all ones"),
    (shift_heads, V1, Component.V_PROJ, 1, "shifted by a head"),
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
    (other_activation, Cause.GRAPH, 1, Component.ACTIVATION),
    (swap_sine_and_cosine, Cause.METADATA, 2, Component.ROPE),
    (drop_residual, Cause.GRAPH, 1, Component.O_PROJ),
]


@pytest.mark.parametrize("variant", ["fp32", "q4"])
@pytest.mark.parametrize(("edit", "kind", "layer", "component"), GRAPHS)
def test_a_wrong_step_of_the_graph_is_named(
    planted: Planted,
    variant: str,
    edit: Callable[[onnx.GraphProto], None],
    kind: Cause,
    layer: int,
    component: Component,
) -> None:
    artifact = planted.export("onnx", variant)
    edit_graph(artifact, edit)
    found = localised(artifact, planted.checkpoint)
    cause = found.cause
    assert (cause.cause, cause.layer, cause.component) == (kind, layer, component), found
    own = [item.own for item in found.layer_errors]
    assert own.index(max(own)) == layer + 1  # the embedding is first


def test_a_layer_that_keeps_other_keys_than_it_uses_is_named(planted: Planted) -> None:
    def exchange(graph: onnx.GraphProto) -> None:
        attention = node(graph, "/model/layers.2/self_attn/GroupQueryAttention")
        attention.output[1], attention.output[2] = attention.output[2], attention.output[1]

    artifact = planted.export("onnx", "fp32")
    edit_graph(artifact, exchange)
    cause = localised(artifact, planted.checkpoint).cause
    assert (cause.cause, cause.layer) == (Cause.KV_CACHE, 2), cause


def test_a_damaged_file_is_the_cause_where_nothing_else_is(planted: Planted) -> None:
    artifact = planted.export("gguf", "f32")
    path = artifact.files(".gguf")[0]
    path.write_bytes(path.read_bytes()[:1000])
    found = localised(artifact, planted.checkpoint, trace=False)
    assert {item.cause for item in found.findings} == {Cause.FILE}
    assert "wrong size" in found.cause.text


class Wrong:
    """A runtime whose steps are noise from the third on, and which knows no digits."""

    name = version = device = "stub"
    context = 256

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.rows = self.rng.standard_normal((40, 50)).astype(np.float32)
        self.length = 0

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) for letter in text.replace("42", "*")]

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.rows[: len(ids)]

    def logit_blocks(self, ids: Sequence[int], first: int = 0) -> Iterator[np.ndarray]:
        yield self.logits(ids)

    def start(self, ids: Sequence[int]) -> np.ndarray:
        self.length = len(ids)
        return np.asarray(self.rows[self.length - 1])

    def step(self, token: int) -> np.ndarray:
        self.length += 1
        row = self.rows[self.length - 1]
        return np.asarray(row if self.length < 27 else row[::-1])

    def close(self) -> None:
        pass


class Right(Wrong):
    """The same without its faults."""

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def test_the_first_step_that_leaves_the_cache_is_named() -> None:
    found = cache_fault(Wrong(), list(range(40)), 0.02)
    assert found is not None
    assert "step 3 after a prompt of 24 tokens" in found.text
    assert cache_fault(Wrong(), list(range(26)), 0.02) is None


def test_the_string_that_tokenizes_differently_is_cut_to_what_matters() -> None:
    found = tokenizer_fault(Wrong(), Right(), ())
    assert found is not None
    assert found.text == "'42' becomes [42], with the checkpoint's tokenizer [52, 50]"
    assert tokenizer_fault(Right(), Right(), ()) is None


def test_nan_is_an_infinite_error_unless_it_was_given() -> None:
    sound, bad = np.ones((2, 3)), np.array([[1.0, np.nan, 1.0], [1.0, 1.0, 1.0]])
    assert relative_error(bad, sound) == np.inf
    assert relative_error(sound, bad) == 0
    assert relative_error(sound * 1.5, sound) == pytest.approx(0.5)


def test_a_gain_is_told_from_rounding() -> None:
    rng = np.random.default_rng(0)
    want = rng.standard_normal((64, 96)).astype(np.float32)
    scaled = weight_error(want * np.float32(1.1), want)
    assert scaled.gain == pytest.approx(1.1, abs=1e-3)
    assert scaled.spread < 1e-3
    rounded = weight_error(np.round(want * 8) / 8, want)
    assert rounded.gain == pytest.approx(1, abs=1e-2)
    assert rounded.peak < 0.2


def test_rows_that_few_bits_lost_are_told_from_small_ones() -> None:
    want = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    want[3] *= 0.01
    step = np.abs(want).max() / 7
    rounded = np.round(want / step) * step
    assert not rounded[3].any()
    assert weight_error(rounded, want).lost == 0
    rounded[5:7] = 0
    assert weight_error(rounded, want).lost == 2


@pytest.mark.slow
def test_nothing_is_blamed_in_the_real_exports(real_artifacts: Path) -> None:
    """Of each format, the export with the fewest bits."""
    (model,) = load_run_record(real_artifacts).models
    checkpoint = Path(model.checkpoint)
    reference = open_reference(checkpoint, 2)
    ids = reference.tokenize("In 1999 the capital of France had 2,125,851 inhabitants. " * 4)
    artifacts = [open_artifact(real_artifacts / item.path) for item in model.artifacts]
    for form in ("onnx", "gguf", "mlc"):
        of_form = [item for item in artifacts if item.manifest.variant.format == form]
        artifact = min(of_form, key=lambda item: item.manifest.effective_bpw)
        found = localise(Subject(artifact, checkpoint, reference, ids, 2), None)
        assert [item.cause for item in found.findings] == [Cause.ROUNDING], (artifact.path, found)
        assert len(found.layer_errors) == 32


def test_a_scale_beyond_all_measure_is_found_in_its_row() -> None:
    want = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    got = want.copy()
    got[5, :32] *= np.float32(1e37)
    name = "model.layers.0.mlp.down_proj.weight"
    with np.errstate(over="ignore", invalid="ignore"):
        said = hint(got, name, {name: want}, Heads(4, 4, 16), weight_error(got, want))
    assert said == "1 of 64 rows differ (row 5)"
