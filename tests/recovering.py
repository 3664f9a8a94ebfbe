"""Recoveries of tiny models by the command, with little text, and what their results are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.cli import main
from edgeproof.files.hashing import file_sha256
from edgeproof.recovery import IQ4_NL_LEVELS, Recovery, read_recovery
from runtimes.located import Model
from runtimes.parity import statistics
from runtimes.pytorch.loading import PROBE
from runtimes.recover import run as runs
from runtimes.recover.text import Windows, evaluation_windows
from runtimes.recover.vocabulary import Vocabulary
from tests.tiny import make_checkpoint

LEVELS = {
    "q4": np.arange(-8, 8),
    "q5": np.arange(-16, 16),
    "q8": np.arange(-127, 128),
    "iq4_nl": np.array(IQ4_NL_LEVELS),
}
SMALL = ("--tokens", "768", "--threads", "1")
HELD = 512  # tokens of held-out text


def invoke(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["recover", *map(str, arguments)])
    return done.exit_code, done.output


def recovered(model: Path, out: Path, *options: str | Path) -> Recovery:
    code, output = invoke("-m", model, "-o", out, *SMALL, *options)
    assert code == 0, output
    record = read_recovery(out)
    assert record is not None
    return record


def values(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: value
        for path in folder.glob("*.safetensors")
        for name, value in load_file(path).items()
    }


def on_grid(rows: np.ndarray, levels: np.ndarray) -> bool:
    """Whether each block is one float16 number times levels: found by trying.

    The value of largest magnitude is some level; which of them, is tried for all blocks at once.
    """
    left = rows.astype(np.float32).reshape(-1, 32)
    left = left[left.any(1)]
    peaks = np.take_along_axis(left, np.abs(left).argmax(1)[:, None], 1)  # [n, 1]
    ordered = np.sort(levels).astype(np.float32)
    middles = (ordered[1:] + ordered[:-1]) / 2
    for level in ordered[ordered != 0]:
        scales = (peaks / level).astype(np.float16).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            nearest = ordered[np.searchsorted(middles, left / scales)]
        apart = (scales * nearest != left).any(1)
        left, peaks = left[apart], peaks[apart]
    return not len(left)


def make_small(folder: Path, **changes: Any) -> Path:
    """Chunks have as many tokens as the context has: texts are sampled in few steps."""
    return make_checkpoint(folder, **{"max_position_embeddings": 65, **changes})


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir())}


WINDOWS: dict[tuple[int, ...], Windows] = {}


def windows_once(vocabulary: Vocabulary) -> Windows:
    """`evaluation_windows`, once for all models with this tokenizer."""
    key = tuple(vocabulary.tokenize(PROBE))
    if key not in WINDOWS:
        WINDOWS[key] = evaluation_windows(vocabulary)
    return WINDOWS[key]


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Little text tells what these tests ask."""
    patch.setattr(statistics, "RESAMPLES", 200)
    patch.setattr(runs, "evaluation_windows", windows_once)


def find_at_once(patch: pytest.MonkeyPatch) -> None:
    """A folder needs no process that finds it; and there is less held-out text."""
    patch.setattr(runs, "LEAST_HELD", HELD)
    patch.setattr(
        "runtimes.located.located",
        lambda model, revision: Model(Path(model), "tiny", None, revision, None),
    )
