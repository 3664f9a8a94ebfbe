"""The formats that can be read: one `Reader` each, ours and those that other packages bring.

A package brings a format by an entry point of the group `edgeproof.readers`, whose name is the
format's and whose object is a `Reader`. Ours come first and cannot be replaced. Nothing of a
runtime is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint

import numpy as np

from edgeproof import plugins
from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.common_tokens import CommonRows
from runtimes.formats import gguf, mlc, mlx, onnx
from runtimes.formats.reader import Deployment, Engine, Reader, Requirement, Stops, Twin

GROUP = "edgeproof.readers"
OURS = {"onnx": onnx.READER, "gguf": gguf.READER, "mlc": mlc.READER, "mlx": mlx.READER}


def known_formats() -> list[str]:
    """Their names, ours first."""
    return [*OURS, *_brought()]


def reader(form: str) -> Reader:
    """What reads a format.

    Raises:
        InputError: nothing does, or what a package brings for it cannot be loaded or is no Reader.
    """
    if form in OURS:
        return OURS[form]
    brought = _brought()
    if form not in brought:
        known = ", ".join(known_formats())
        raise InputError(f"nothing here reads the format {form!r}; known: {known}")
    return plugins.load(brought[form], Reader)


def reader_of(artifact: Artifact) -> Reader:
    """What reads an artifact.

    Raises:
        InputError: nothing reads its format.
    """
    try:
        return reader(artifact.manifest.variant.format)
    except InputError as error:
        raise InputError(f"{artifact.path}: {error}") from None


def readable(artifact: Artifact) -> bool:
    """Whether there are weights to read: a graph that Optimum traced has lost their names."""
    return not artifact.manifest.variant.facts.traced


def dequantise(
    artifact: Artifact, original: Mapping[str, np.ndarray] | None = None
) -> Mapping[str, np.ndarray]:
    """Every parameter as float32, under its Hugging Face name and in its layout.

    Each is dequantised when it is looked up, so that only those in use are in memory.

    Linear weights are [out, in], query and key rows in Hugging Face's rotary order, fused
    projections split; a tied head is absent. Of more tokens than the original's those are left out;
    of fewer, with the `original`'s weights, the rows that are missing are the original's.

    Raises:
        InputError: nothing reads the format, or the files are damaged or of an unknown layout;
            looking a tensor up raises it where that one is.
    """
    weights = reader_of(artifact).weights(artifact)
    vocabulary = artifact.vocabulary
    return CommonRows(weights, vocabulary, original) if vocabulary else weights


def _brought() -> dict[str, EntryPoint]:
    return plugins.brought(GROUP, OURS)


__all__ = [
    "Deployment",
    "Engine",
    "Reader",
    "Requirement",
    "Stops",
    "Twin",
    "dequantise",
    "known_formats",
    "readable",
    "reader",
    "reader_of",
]
