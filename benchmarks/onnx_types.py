"""`python -m benchmarks.onnx_types`: size and speed of the ONNX dtypes in ONNX Runtime on the CPU.

One thread, so that CPU seconds are comparable; the better of two rounds. Variants are named as
`python -m export.onnx` names their folders; `/level-0` after one has MatMulNBits compute in the
activations' type instead of rounding them to 8 bits.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.graph_speed import Decoder, only_graph, prompt
from edgeproof.artifact import Artifact
from edgeproof.families import DecoderConfig
from export import job
from export.checkpoint import open_checkpoint
from export.onnx import FORMAT
from export.sources import resolve

OUT = Path("artifacts")
PROMPT = 64
ROUNDS = 2
LEVEL_0 = "/level-0"
# Name → dtype and options.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("fp32", {}),
    "fp16": ("fp16", {}),
    "fp32-portable": ("fp32", {"graph": "portable"}),
    "fp16-portable": ("fp16", {"graph": "portable"}),
    "q8-embedding-fp16-portable": ("q8", {"embedding": "fp16", "graph": "portable"}),
    "q4-embedding-fp16-portable": ("q4", {"embedding": "fp16", "graph": "portable"}),
    "q8": ("q8", {}),
    "q8" + LEVEL_0: ("q8", {}),
    "q8-native": ("q8", {"target": "native"}),
    "q8-embedding-fp16": ("q8", {"embedding": "fp16"}),
    "int8": ("int8", {}),
    "uint8": ("uint8", {}),
    "q4": ("q4", {}),
    "q4" + LEVEL_0: ("q4", {}),
    "q4-symmetric": ("q4", {"symmetric": True}),
    "q4-embedding-fp16": ("q4", {"embedding": "fp16"}),
    "q4-embedding-q4": ("q4", {"embedding": "q4"}),
    "q4f16": ("q4f16", {}),
    "q4f16" + LEVEL_0: ("q4f16", {}),
    "q4f16-embedding-q8": ("q4f16", {"embedding": "q8"}),
    "bnb4": ("bnb4", {}),
}


def main() -> None:
    """Export what is missing, measure the named cases (or all), print the table."""
    table = Table(title="ONNX dtypes, ONNX Runtime on one CPU thread", title_justify="left")
    for name in ("variant", "MB", "bits/weight", "decode tokens/CPU-s", "prefill tokens/CPU-s"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    config = open_checkpoint(resolve("bundled").path).config
    for name in sys.argv[1:] or CASES:
        dtype, options = CASES[name]
        artifact = export(dtype, options)
        graph = only_graph(artifact.path / "onnx")
        with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
            if name.endswith(LEVEL_0):
                graph = at_level_0(graph, Path(folder) / "copy")
            decode, prefill = speed(graph, config)
        manifest = artifact.manifest
        size = sum(item.bytes for item in manifest.outputs) / 1e6
        numbers = (size, manifest.effective_bpw, decode, prefill)
        table.add_row(name, *(f"{n:.{d}f}" for n, d in zip(numbers, (1, 2, 1, 0), strict=True)))
    Console(width=100).print(table)


def export(dtype: str, options: dict[str, Any]) -> Artifact:
    """One variant of the bundled model, reused if it is there."""
    source = resolve("bundled")
    checkpoint = open_checkpoint(source.path)
    identity = job.identify(source, checkpoint)
    variant = FORMAT.variant(dtype, **options)
    wanted = job.Job(source, checkpoint, identity, FORMAT, variant)
    return job.run(wanted, OUT, lambda n: None).artifact


def at_level_0(graph: Path, folder: Path) -> Path:
    """A copy of the graph, beside the same weights, whose MatMulNBits nodes have no such level."""
    shutil.copytree(graph.parent, folder)
    path = folder / graph.name
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        kept = [item for item in node.attribute if item.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(model, path)
    return path


def speed(graph: Path, config: DecoderConfig) -> tuple[float, float]:
    """Decoded and prefilled tokens per CPU second."""
    session = Decoder(graph, 1, config.kv_heads, config.head_dim)
    ids = prompt(config.vocab, PROMPT)
    rounds = [session.measure(ids) for _ in range(ROUNDS)]
    return max(decode.cpu for decode, _ in rounds), max(prefill.cpu for _, prefill in rounds)


if __name__ == "__main__":
    main()
