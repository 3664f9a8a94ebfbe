"""What rounding explains of a stored weight, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.parity.localise import Cause, Subject, localise
from runtimes.registry import open_reference
from tests.faults.fault import Finds, Plant, Read
from tests.faults.planting import export
from tests.faults.tensors import DOWN, name
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.numbers

STRETCHED = [("onnx", "fp16", 1.004), ("gguf", "f16", 1.004), ("mlc", "q0f16", 1.004)]


@pytest.mark.parametrize(("form", "variant", "factor"), [*STRETCHED, ("gguf", "bf16", 1.015)])
def test_a_row_that_is_a_little_too_large_is_no_rounding_of_16_bits(
    tmp_path: Path, form: str, variant: str, factor: float
) -> None:
    def stretch(read: Read, _: Any) -> dict[str, np.ndarray]:
        weight = np.array(read(name(DOWN)))
        weight[7] *= np.float32(factor)
        return {name(DOWN): weight}

    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    plant = Plant(Finds(Cause.WEIGHTS), tensors=stretch, variant=variant)
    artifact = export(checkpoint, form, tmp_path / "out", plant)
    subject = Subject(artifact, checkpoint, open_reference(checkpoint, 1), range(3, 30), 1)
    cause = localise(subject, None, trace=False).cause
    assert (cause.cause, cause.tensor) == (Cause.WEIGHTS, name(DOWN))
