"""The weights of an artifact, read back from its bytes without any code of the exporters.

Run in PyTorch they show the error of the stored weights alone; and because nothing is shared with
`export`, a mistake of a writer cannot hide in its own reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError

READERS = {
    "gguf": "runtimes.weights.gguf",
    "mlc": "runtimes.weights.mlc",
    "onnx": "runtimes.weights.onnx",
}


def readable(artifact: Artifact) -> bool:
    """Whether there are weights to read: a graph that Optimum traced has lost their names."""
    return "engine" not in dict(artifact.manifest.variant.storage)


def dequantise(artifact: Artifact) -> Mapping[str, np.ndarray]:
    """Every parameter as float32, under its Hugging Face name and in its layout.

    Each is dequantised when it is looked up, so that only those in use are in memory.

    Linear weights are [out, in], query and key rows in Hugging Face's rotary order, fused
    projections split; a tied head is absent.

    Raises:
        InputError: no reader for the format, or the files are damaged or of an unknown layout;
            looking a tensor up raises it where that one is.
    """
    form = artifact.manifest.variant.format
    if form not in READERS:
        raise InputError(f"{artifact.path}: no weight reader for {form!r}; known: {[*READERS]}")
    tensors: Mapping[str, np.ndarray] = import_module(READERS[form]).read(artifact)
    return tensors


__all__ = ["dequantise", "readable"]
