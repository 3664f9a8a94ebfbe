"""The ONNX variants: which storage each tensor class gets, under transformers.js's file names.

File names: https://github.com/huggingface/transformers.js, `DEFAULT_DTYPE_SUFFIX_MAPPING`.
"""

from __future__ import annotations

from importlib.metadata import version

from export.artifact import ArtifactWriter, ModelIdentity, Precision, Variant
from export.checkpoint import Checkpoint, open_checkpoint
from export.format import Advance, Format
from export.onnx.traced import TRACED

FP32 = Variant(
    format="onnx",
    name="fp32",
    precision=Precision.FP32,
    storage=(
        ("linear", "float32"),
        ("embedding", "float32"),
        ("norm", "float32"),
        ("kv_cache", "float32"),
    ),
)
FP16 = Variant(
    format="onnx",
    name="fp16",
    precision=Precision.FP16,
    storage=(
        ("linear", "float16"),
        ("embedding", "float16"),
        ("norm", "float16"),
        ("kv_cache", "float16"),
    ),
    aliases=("q016",),
)


def _write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant,
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    # `import onnx` costs 0.3 CPU-seconds; `--help` and a reused artifact do without it.
    from export.onnx.folder import write_folder

    write_folder(checkpoint, variant, writer, advance)


FORMAT = Format(
    name="onnx",
    title="ONNX (ONNX Runtime, transformers.js, Optimum)",
    variants=(FP32, FP16),
    tools={"onnx": version("onnx")},
    open=open_checkpoint,
    write=_write,
    engines={"optimum": TRACED},
)
