"""The ONNX variants: which storage each class of tensors gets, under transformers.js's names.

docs/onnx-types.md has the measurements behind the choices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Precision, Variant
from export.checkpoint import Checkpoint, open_checkpoint
from export.format import Advance, Format
from export.onnx.publication import PUBLICATION
from export.onnx.recipe import FLOAT_DTYPES, OPTIONS, Recipe, with_options
from export.onnx.residual_scale import RESIDUAL_OPTION, scaled
from export.onnx.traced import TRACED
from export.rounding.options import (
    IMATRIX_OPTION,
    ROUNDING_OPTION,
    with_imatrix,
    with_rounding,
)


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


VARIANTS = (
    _variant("fp32", Precision.FP32, "float32", "float32"),
    _variant("fp16", Precision.FP16, "float16", "float16", "float16", aliases=("q016",)),
    _variant("q8", Precision.EIGHT_BIT, "q8", "q8"),
    _variant("int8", Precision.EIGHT_BIT, "int8", "q8"),
    _variant("uint8", Precision.EIGHT_BIT, "uint8", "q8"),
    _variant("q4", Precision.LOW_BIT, "q4-asymmetric", "q8"),
    _variant("q4f16", Precision.LOW_BIT, "q4-asymmetric", "float16", "float16"),
    _variant("bnb4", Precision.LOW_BIT, "bnb4", "q8"),
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
    has_codes = variant.name not in FLOAT_DTYPES
    chosen = scaled(with_options(variant, **options), residual_scale)
    return with_imatrix(with_rounding(chosen, rounding, has_codes=has_codes), imatrix)


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
    options=(*OPTIONS, RESIDUAL_OPTION, ROUNDING_OPTION, IMATRIX_OPTION),
    with_options=_with_all_options,
    engines={"optimum": TRACED},
    example="python -m export.onnx --model bundled --dtype fp16",
    publication=PUBLICATION,
)
