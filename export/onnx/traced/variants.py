"""The variants that Optimum traces. Its graphs are fp32 or fp16, whatever the architecture."""

from __future__ import annotations

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Precision, Variant
from export.checkpoint import CheckpointFolder, open_folder
from export.format import Advance, Exporter
from export.onnx.traced.environment import REQUIREMENTS, pinned_versions
from export.onnx.traced.recipe import Recipe


def _variant(dtype: str, stored: str, precision: Precision, *aliases: str) -> Variant[Recipe]:
    recipe = Recipe(dtype, stored)
    return Variant("onnx", f"{dtype}-optimum", precision, recipe, (dtype, *aliases))


def _write(
    checkpoint: CheckpointFolder,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    # `import onnx` costs 0.3 CPU-seconds; `--help` and a reused artifact do without it.
    from export.onnx.traced.exporter import write_traced

    write_traced(checkpoint, variant.recipe, writer, advance)


TRACED = Exporter(
    name="onnx",
    title="Optimum traces any architecture that it supports (downloads its own environment once)",
    variants=(
        _variant("fp32", "float32", Precision.FP32),
        _variant("fp16", "float16", Precision.FP16, "q016"),
    ),
    tools=("onnx",),
    variant_tools=lambda variant: pinned_versions(REQUIREMENTS),
    open=open_folder,
    write=_write,
    check=None,
)
