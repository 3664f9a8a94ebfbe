"""What a plan leaves behind, small and quick: a checkpoint, two GGUF files, and all our records."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord
from edgeproof.verdicts import (
    ELSEWHERE,
    EVALUATION,
    REPORT,
    Score,
    ShortRun,
    TaskScore,
    Verdict,
    write_scores,
    write_short_runs,
)
from runtimes.parity.report.json import write_json
from tests.exported import export_tiny
from tests.parity_results import entry, measurement, result
from tests.tiny import make_checkpoint

DTYPES = ("f16", "q8_0")


def make_small_root(place: Path) -> Path:
    """Make `model` and `artifacts` in a folder; the second."""
    checkpoint, root = make_checkpoint(place / "model"), place / "artifacts"
    exported = [export_tiny(checkpoint, "gguf", dtype, root) for dtype in DTYPES]
    shutil.rmtree(root / "cache")
    entries = [
        replace(entry(item.path.name, Verdict.PASS, measured=measurement()), artifact=item)
        for item in exported
    ]
    write_json(root / "tiny" / REPORT, result(*entries))
    planned = tuple(PlannedArtifact(f"tiny/gguf/{item.path.name}", False) for item in exported)
    RunRecord((ModelRun("tiny", str(checkpoint), planned),), {}).save(root)
    short = ShortRun(
        "gguf", "f16", exported[0].sha256, "WebGPU", "WebGPU", "webgpu", 1, 9, 0.1, 0.0, 0.2,
        Verdict.PASS, (),
    )  # fmt: skip
    write_short_runs(root / "tiny" / ELSEWHERE, [short])
    score = TaskScore(
        "gguf", "f16", exported[0].sha256, "llama.cpp", "0.4.13", "capitals", "1", "acc", "none",
        True, 0, False, "ab", 9, 9, Score(0.5, 0.2, 0.8), None,
    )  # fmt: skip
    write_scores(root / "tiny" / EVALUATION, [score])
    return root
