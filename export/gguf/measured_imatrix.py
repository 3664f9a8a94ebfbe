"""`--imatrix` without a file: the importance matrix that the checkpoint's own reference gives.

PyTorch belongs to `runtimes`, which is not imported here: `python -m runtimes.imatrix` runs as a
process of its own. It keeps what it measured in the cache, by the hash of checkpoint and text.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.gguf.imatrix import check_use
from export.rounding.imatrix import keep_imatrix
from export.rounding.options import with_imatrix_entries
from export.rounding.rounder import IMATRIX

AUTO = "auto"
CALIBRATION = "calibration"  # key of a file's path in a recipe that is not complete yet
NEEDED = ("torch", "transformers")


def with_measured_imatrix(variant: Variant, calibration: Path | None) -> Variant:
    """The variant with the wish for a matrix, measured on a text or on the model's own.

    `complete_from_checkpoint` has it measured.

    Raises:
        InputError: the variant's type does not use one, the text is not there, or PyTorch is not.
    """
    check_use(variant)
    if calibration is not None and not calibration.is_file():
        raise InputError(f"--calibration {calibration}: no such file")
    if any(importlib.util.find_spec(package) is None for package in NEEDED):
        raise InputError(
            "--imatrix without a file is measured in PyTorch, which is not installed:"
            ' pip install "edgeproof[parity]", or give a file made elsewhere'
        )
    text = [] if calibration is None else [(CALIBRATION, str(calibration))]
    return with_imatrix_entries(variant, [(IMATRIX, AUTO), *text])


def complete_from_checkpoint(variant: Variant, checkpoint: Checkpoint) -> Variant:
    """The variant with the measured matrix's SHA-256 in place of the wish for one.

    Raises:
        InputError: it cannot be measured.
    """
    storage = dict(variant.storage)
    if storage.get(IMATRIX) != AUTO:
        return variant
    calibration = storage.pop(CALIBRATION, None)
    storage[IMATRIX] = _measure(checkpoint.path, calibration)
    return replace(variant, storage=tuple(storage.items()))


def _measure(checkpoint: Path, calibration: str | None) -> str:
    """Have the matrix measured, or taken from the cache; its SHA-256."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as folder:
        out = Path(folder, "imatrix.gguf")
        command = [sys.executable, "-m", "runtimes.imatrix"]
        command += ["--checkpoint", str(checkpoint), "--out", str(out)]
        command += [] if calibration is None else ["--calibration", calibration]
        # Progress and errors go where ours go.
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            raise InputError(
                "--imatrix: the importance matrix could not be measured; what went wrong is above."
                " `python -m runtimes.imatrix` makes one by hand"
            )
        return keep_imatrix(out)
