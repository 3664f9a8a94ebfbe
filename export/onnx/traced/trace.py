"""Trace a checkpoint with Optimum: `python trace.py CHECKPOINT OUT DTYPE`.

Runs in an environment of its own (requirements.txt beside it) and imports nothing of this project.
Writes OUT/graph.onnx and its tensors as OUT/weights. No network, no remote code, no pickles.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Read by the libraries when they are imported.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import onnx
from onnx.external_data_helper import set_external_data
from optimum.exporters.onnx import main_export

GRAPH, WEIGHTS = "graph.onnx", "weights"
TASK = "text-generation-with-past"
# Smaller tensors stay in the graph's file: shapes, scalars, masks.
EXTERNAL_BYTES = 1024


def main() -> None:
    """Trace, then put the tensors into one file beside the graph."""
    checkpoint, out, dtype = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="traced-", dir=out) as folder:
        main_export(
            checkpoint,
            folder,
            task=TASK,
            dtype=dtype,
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            library_name="transformers",
            do_validation=False,  # the parity run does it better, with the unpatched model
        )
        model = onnx.load(Path(folder) / "model.onnx")
    with (Path(out) / WEIGHTS).open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= EXTERNAL_BYTES:
                set_external_data(tensor, WEIGHTS, file.tell(), len(tensor.raw_data))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
    (Path(out) / GRAPH).write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
