"""float16 headroom: where users compute in float16, of what overflows first, with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import Precision
from runtimes.parity.gates import HEADROOM, Gate, gates_for
from runtimes.parity.headroom import headroom, placed, room_text, rooms, score_notes
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Prompt, Suite
from runtimes.peaks import Peak, Place, largest
from runtimes.registry import activations, open_reference
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint, write_weights
from tests.tolerance import REORDERED_FLOAT32, relative_error

LAYER = 1
GATE, UP = 2.0**6, 2.0**11
TEXTS = ("On 21 June the ferry left at noon.", "A goat, a piano and 42 people.", "It rained.")
# Export → whether users compute in float16 there.
EXPORTS = {
    ("onnx", "fp32"): False,
    ("onnx", "fp16"): True,
    ("onnx", "q4"): False,
    ("onnx", "q4f16"): True,
    ("gguf", "f16"): False,
    ("mlc", "q0f16"): True,
    ("mlc", "q4f16_1"): True,
    ("mlc", "q4f32_1"): False,
    ("mlc", "q4bf16_1"): False,
}


def large_unit(folder: Path, gate: float, up: float) -> Path:
    """A checkpoint in which a unit of the MLP is that much larger and counts as much less.

    Whatever `up` is, it is the same function.
    """
    make_checkpoint(folder)
    stored = load_file(folder / "model.safetensors")
    tensors = {name: values.copy() for name, values in stored.items()}
    prefix = f"model.layers.{LAYER}.mlp."
    tensors[f"{prefix}gate_proj.weight"][7] *= np.float32(gate)
    tensors[f"{prefix}up_proj.weight"][7] *= np.float32(up)
    tensors[f"{prefix}down_proj.weight"][:, 7] /= np.float32(gate * up)
    write_weights(folder, tensors)
    return folder


def compared(folder: Path, root: Path, *exported: tuple[str, str]) -> dict[str, list[str]]:
    """Variant → what its row says of headroom."""
    suite = Suite("some", tuple(Prompt(str(n), "prose", text) for n, text in enumerate(TEXTS)))
    requests = [Request(export_tiny(folder, *key, root).path, False) for key in exported]
    conditions = Conditions(suite, 1, {}, Extent(footprints=False))
    _, entries = run_parity(ParityRun(folder, requests, conditions))
    return {
        entry.artifact.manifest.variant.name: [
            text
            for text in (*entry.judgement.reasons, *entry.judgement.notes)
            if "fp16_headroom" in text
        ]
        for entry in entries
    }


@pytest.mark.parametrize(("form", "dtype"), EXPORTS)
def test_it_is_asked_where_users_compute_in_float16(tmp_path: Path, form: str, dtype: str) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "m"), form, dtype, tmp_path)
    assert ("float16" in activations(artifact)) == EXPORTS[form, dtype]


def test_a_runtime_that_was_named_answers_for_itself(tmp_path: Path) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "m"), "onnx", "q4f16", tmp_path)
    assert activations(artifact, "webgpu") == {"float16"}
    assert activations(artifact, "browser") == {"float32"}


@pytest.mark.numbers
def test_a_product_that_overflows_is_named_and_the_remedy_is_exact(tmp_path: Path) -> None:
    ids = range(VOCAB // 8)
    large = large_unit(tmp_path / "a" / "m", GATE, UP)
    small = large_unit(tmp_path / "b" / "m", GATE, 1.0)
    expected = open_reference(large, 1).logits(ids)
    assert relative_error(open_reference(small, 1).logits(ids), expected) < REORDERED_FLOAT32
    keys = (("onnx", "fp16"), ("gguf", "q8_0"))
    found = compared(large, tmp_path / "a", *keys)
    (text,) = found["fp16"]
    assert f"gate × up in layer {LAYER} reaches" in text
    assert "multiply up_proj with 2^-" in text
    assert "--residual-scale" not in text
    assert found["q8_0"] == []
    assert compared(small, tmp_path / "b", *keys[:1]) == {"fp16": []}


def test_the_row_names_the_least_room_and_what_a_scale_mends() -> None:
    peaks = (Peak(Place.STREAM, 3, 60_000.0), Peak(Place.PRODUCT, 5, 1000.0))
    gates = gates_for_float16()
    (*_, gate) = placed(gates, rooms(peaks, 1.0), 1.0)
    assert "residual stream in layer 3 reaches 6e+04: `python -m export.onnx" in gate.reason
    assert "--residual-scale 0.5`" in gate.reason
    assert "gate × up" not in gate.reason
    assert headroom(rooms(peaks, 1.0)) == 65504 / 60_000
    (*_, mended) = placed(gates, rooms(peaks, 0.25), 0.25)
    assert headroom(rooms(peaks, 0.25)) == 65504 / 15_000
    assert mended.reason == f"{HEADROOM.reason}; residual stream in layer 3 reaches 6e+04"
    (*_, further) = placed(gates, rooms(peaks, 0.5), 0.5)
    assert gates[:-1] == placed(gates, rooms(peaks, 0.5), 0.5)[:-1]
    assert "reaches 6e+04" in further.reason


@pytest.mark.parametrize("peak", [33_000.0, 65_504.0, 1e6, 3e8])
@pytest.mark.parametrize("place", [Place.STREAM, Place.OUTPUTS, Place.PRODUCT, Place.HEADS])
def test_a_remedy_is_enough_and_no_more_than_that(place: Place, peak: float) -> None:
    (*_, gate) = placed(gates_for_float16(), rooms([Peak(place, None, peak)], 1.0), 1.0)
    exponent = next(k for k in range(60) if 65504 / (peak * 2.0**-k) >= HEADROOM.limit)
    shown = {
        Place.STREAM: f"--residual-scale {2.0**-exponent:g}`",
        Place.OUTPUTS: f"down_proj with 2^-{exponent} and the ε of the norms after them with ",
        Place.PRODUCT: f"up_proj with 2^-{exponent} and down_proj with 2^{exponent} ",
        Place.HEADS: f"k_proj with 2^-{exponent} and the ε of their norms with 2^-{2 * exponent} ",
    }
    assert shown[place] in gate.reason
    assert f"{place.value} behind the last layer" in gate.reason


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_values_without_a_remedy_are_only_named(value: float) -> None:
    (*_, gate) = placed(gates_for_float16(), rooms([Peak(Place.STREAM, 0, value)], 1.0), 1.0)
    assert gate.reason.endswith(f"in layer 0 reaches {value:.4g}")


def test_scores_are_a_note_and_decide_nothing() -> None:
    peaks = (Peak(Place.STREAM, 0, 10.0), Peak(Place.SCORES, 4, 50_000.0))
    found = rooms(peaks, 1.0)
    assert headroom(found) == 6550.4
    (note,) = score_notes(gates_for_float16(), found)
    assert "attention scores in layer 4 may reach 5e+04" in note
    assert score_notes((), found) == []
    assert score_notes(gates_for_float16(), rooms(peaks[:1], 1.0)) == []


def test_the_room_of_every_place_is_told_the_least_first() -> None:
    peaks = (Peak(Place.STREAM, 2, 25_000.0), Peak(Place.PRODUCT, 1, 40_000.0))
    assert room_text(peaks) == (
        "1.64× for gate × up in layer 1; 2.62× for residual stream in layer 2;"
        " none for the stream's squares: norms must add them up in float32"
    )
    assert room_text(peaks[1:]) == "1.64× for gate × up in layer 1"


def test_of_each_place_the_first_of_the_largest_is_kept() -> None:
    peaks = [Peak(Place.PRODUCT, n, value) for n, value in enumerate((1.0, 3.0, 3.0))]
    assert largest([*peaks, Peak(Place.STREAM, None, 2.0)]) == (
        Peak(Place.STREAM, None, 2.0),
        Peak(Place.PRODUCT, 1, 3.0),
    )


def gates_for_float16() -> tuple[Gate, ...]:
    return gates_for(Precision.FP16, {}, float16=True)
