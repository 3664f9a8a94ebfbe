"""What a planted fault is, and what the instrument must say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.families import DecoderConfig
from runtimes.parity.localise import Cause, Finding

# The checkpoint's tensor of a name, in its stored dtype.
Read = Callable[[str], np.ndarray]
# What an exporter with the fault would read in place of the checkpoint's tensors.
ChangeTensors = Callable[[Read, DecoderConfig], dict[str, np.ndarray]]
# Edits a parsed JSON file of the checkpoint in place.
EditDocument = Callable[[dict[str, Any]], None]
EditArtifact = Callable[[Artifact], None]
# While it is entered, a runtime computes something else.
AtRunTime = Callable[[], AbstractContextManager[Any]]

FORMATS = ("onnx", "gguf", "mlc")
# Each format's most exact type: nothing but the fault makes a difference.
SIXTEEN_BIT = {"onnx": "fp16", "gguf": "f16", "mlc": "q0f16", "mlx": "f16"}
# What a clean export loses in these may be more than the gates allow.
FOUR_BIT = {"onnx": "q4", "gguf": "q4_0", "mlc": "q4f16_1"}


@dataclass(frozen=True)
class Finds:
    """A correct localisation: the first finding's cause, and what else it must name.

    None says that the fault has no such place, or several; of `tensors`, it must name one.
    """

    cause: Cause
    layer: int | None = None
    tensors: tuple[str, ...] = ()
    key: str | None = None

    def agrees(self, finding: Finding) -> bool:
        """Whether a finding says all of this."""
        return (
            finding.cause is self.cause
            and self.layer in (None, finding.layer)
            and (not self.tensors or finding.tensor in self.tensors)
            and (self.key is None or self.key in (finding.key or ""))
        )


@dataclass(frozen=True)
class Plant:
    """How one format gets the fault.

    `tensors` and `documents` (by file name) change what its exporter reads, `files` edits what it
    wrote, `runtime` is entered while it is run. `variant` is the type to export where it is not the
    16-bit one.
    """

    finds: Finds
    tensors: ChangeTensors | None = None
    documents: Mapping[str, EditDocument] = field(default_factory=dict)
    files: EditArtifact | None = None
    runtime: AtRunTime | None = None
    variant: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """One mistake that exporters make, in each format that can have it.

    `model` is a family of `tests.tiny.FAMILIES` where the usual model has not what it takes.
    A `harmless` one is no fault: nothing may be said of it.
    """

    name: str
    what: str
    plants: Mapping[str, Plant]
    model: str | None = None
    harmless: bool = False


def everywhere(finds: Finds, **plant: Any) -> dict[str, Plant]:
    """The same plant in every format."""
    return dict.fromkeys(FORMATS, Plant(finds, **plant))
