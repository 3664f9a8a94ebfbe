"""The ONNX variants: which storage each class of tensors gets, under transformers.js's names.

docs/onnx-types.md has the measurements behind the choices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Precision, Variant
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint, open_checkpoint
from export.format import Advance, Format, RecoveredDtypes
from export.onnx import looking
from export.onnx.publication import PUBLICATION
from export.onnx.recipe import FLOAT_DTYPES, OPTIONS, RECOVERED, Recipe, with_options
from export.onnx.residual_scale import RESIDUAL_OPTION, scaled
from export.onnx.traced import TRACED
from export.rounding.options import (
    IMATRIX_OPTION,
    ROUNDING_OPTION,
    with_imatrix,
    with_rounding,
)
from export.rounding.recipe import ROUNDING, Rounding
from export.rounding.registry import LATTICE


def _variant(
    name: str,
    precision: Precision,
    linear: str,
    embedding: str,
    activations: str = "float32",
    aliases: tuple[str, ...] = (),
) -> Variant[Recipe]:
    recipe = Recipe(name, linear, embedding, activations)
    return Variant("onnx", name, precision, recipe, aliases)


def _recovered(dtype: str, activations: str, *, native: bool) -> Variant[Recipe]:
    """A recovered checkpoint under transformers.js's name of the dtype.

    WebGPU looks rows up where they lie; builds for wasm may lack the operator.
    """
    recipe = Recipe(dtype, RECOVERED, RECOVERED, activations, native, rounding=Rounding(LATTICE))
    return Variant("onnx", f"{dtype}-{RECOVERED}", Precision.LOW_BIT, recipe)


RECOVERED_VARIANTS = {
    "q4": _recovered("q4", "float32", native=False),
    "q4f16": _recovered("q4f16", "float16", native=True),
}
VARIANTS = (
    _variant("fp32", Precision.FP32, "float32", "float32"),
    _variant("fp16", Precision.FP16, "float16", "float16", "float16", aliases=("q016",)),
    _variant("q8", Precision.EIGHT_BIT, "q8", "q8"),
    _variant("int8", Precision.EIGHT_BIT, "int8", "q8"),
    _variant("uint8", Precision.EIGHT_BIT, "uint8", "q8"),
    _variant("q4", Precision.LOW_BIT, "q4-asymmetric", "q8"),
    _variant("q4f16", Precision.LOW_BIT, "q4-asymmetric", "float16", "float16"),
    _variant("bnb4", Precision.LOW_BIT, "bnb4", "q8"),
    *RECOVERED_VARIANTS.values(),
)


def _with_all_options(
    variant: Variant[Recipe],
    *,
    residual_scale: float | None = None,
    rounding: str | None = None,
    imatrix: Path | None = None,
    **options: Any,
) -> Variant[Recipe]:
    """The variant with all options of ONNX in its recipe and in its name."""
    if variant.recipe.linear == RECOVERED and rounding is not None:
        raise InputError(f"--{ROUNDING}: {variant.name} has codes already; leave it out")
    has_codes = variant.name not in FLOAT_DTYPES
    chosen = scaled(with_options(variant, **options), residual_scale)
    return with_imatrix(with_rounding(chosen, rounding, has_codes=has_codes), imatrix)


def _for_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    return looking.for_checkpoint(variant, checkpoint, RECOVERED_VARIANTS)


def _write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    # `import onnx` costs 0.3 CPU-seconds; `--help` and a reused artifact do without it.
    from export.onnx.folder import write_folder

    write_folder(checkpoint, variant.recipe, writer, advance)


FORMAT = Format(
    name="onnx",
    title="ONNX (ONNX Runtime, transformers.js, Optimum)",
    variants=VARIANTS,
    tools=("onnx",),
    open=open_checkpoint,
    write=_write,
    check=None,
    for_checkpoint=_for_checkpoint,
    complete_from_checkpoint=looking.complete_from_checkpoint,
    options=(*OPTIONS, RESIDUAL_OPTION, ROUNDING_OPTION, IMATRIX_OPTION),
    with_options=_with_all_options,
    engines={"optimum": TRACED},
    example="python -m export.onnx --model bundled --dtype fp16",
    publication=PUBLICATION,
    runtimes=("webgpu", "onnxruntime-cuda", "browser", "browser-webgpu", "openvino"),
    recovered=RecoveredDtypes(
        {dtype: variant.name for dtype, variant in RECOVERED_VARIANTS.items()}, mixes=True
    ),
)
