"""`--imatrix` without a file: the importance matrix that the checkpoint's own reference gives.

PyTorch belongs to `runtimes`, which is not imported here: `python -m runtimes.imatrix` runs as a
process of its own. It keeps what it measured in the cache, by the hash of checkpoint and text.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.processes import run
from export.checkpoint import Checkpoint
from export.gguf.imatrix import check_use
from export.gguf.recipe import MatrixWish, Recipe
from export.rounding.imatrix import keep_imatrix
from export.rounding.options import named_after_imatrix, with_digest

NEEDED = ("torch", "transformers")


def with_measured_imatrix(variant: Variant[Recipe], calibration: Path | None) -> Variant[Recipe]:
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
    return named_after_imatrix(variant, replace(variant.recipe, wish=MatrixWish(calibration)))


def complete_from_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    """The variant with the measured matrix's SHA-256 in place of the wish for one.

    Raises:
        InputError: it cannot be measured.
    """
    wish = variant.recipe.wish
    if wish is None:
        return variant
    digest = _measure(checkpoint.path, wish.calibration)
    return replace(variant, recipe=replace(with_digest(variant.recipe, digest), wish=None))


def _measure(checkpoint: Path, calibration: Path | None) -> str:
    """Have the matrix measured, or taken from the cache; its SHA-256."""
    with scratch_folder(prefix="edgeproof-") as folder:
        out = folder / "imatrix.gguf"
        command = [sys.executable, "-m", "runtimes.imatrix"]
        command += ["--checkpoint", str(checkpoint), "--out", str(out)]
        command += [] if calibration is None else ["--calibration", str(calibration)]
        # Progress and errors go where ours go.
        if run(command, stdout=subprocess.DEVNULL).returncode != 0:
            raise InputError(
                "--imatrix: the importance matrix could not be measured; what went wrong is above."
                " `python -m runtimes.imatrix` makes one by hand"
            )
        return keep_imatrix(out)
