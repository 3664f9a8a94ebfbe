"""A folder of artifacts as `make export-all` leaves it, for tests of releases: tiny and quick.

The artifacts are the real exporters', the reports the real reporter's; what they report never took
place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord
from edgeproof.verdicts import Verdict
from runtimes.parity.report.outputs import write_reports
from runtimes.parity.result import Entry
from tests.exported import export_tiny
from tests.parity_results import entry, measurement, result
from tests.tiny import make_checkpoint

LABEL = "tiny"
CARD = """---
license: apache-2.0
base_model: some/base
tags:
- sft
datasets:
- some/data
language:
- en
model-index: []
---

# Tiny
"""
# format, dtype, verdict, whether the plan allows it to be degraded
VARIANTS = (
    ("onnx", "fp16", Verdict.PASS, False),
    ("onnx", "q8", Verdict.PASS, False),
    ("gguf", "q8_0", Verdict.PASS, False),
    ("gguf", "q4_0", Verdict.DEGRADED, True),
    ("mlc", "q0f16", Verdict.PASS, False),
)


def make_root(folder: Path, **verdicts: Verdict) -> Path:
    """Export, report and record; `verdicts` change those of variants, by dtype."""
    checkpoint = make_checkpoint(folder / "checkpoint", seed=7)
    (checkpoint / "README.md").write_text(CARD)
    root = folder / "artifacts"
    entries, planned = [], []
    for form, dtype, usual, allowed in VARIANTS:
        artifact = export_tiny(checkpoint, form, dtype, root)
        # What is bad has been decided by a part of the text.
        measured = replace(measurement(0.01), whole_text=usual is Verdict.PASS)
        shown = entry(dtype, verdicts.get(dtype, usual), allowed=allowed, measured=measured)
        entries.append(replace(shown, artifact=artifact))
        planned.append(PlannedArtifact(artifact.path.relative_to(root).as_posix(), allowed))
    report(root, entries)
    RunRecord((ModelRun(LABEL, str(checkpoint), tuple(planned)),), {}).save(root)
    return root


def report(root: Path, entries: list[Entry]) -> None:
    """Write parity.json and parity.html."""
    write_reports(result(*entries, label=LABEL), root / LABEL / "parity.json", True)
