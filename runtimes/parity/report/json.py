"""`parity.json`: everything that was measured, as docs/parity.schema.json describes it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeproof.files.atomic import write_atomic
from edgeproof.verdicts import SCHEMA
from runtimes.parity.advice import advise
from runtimes.parity.result import Entry, ModelResult


def write_json(path: Path, result: ModelResult) -> None:
    """Write `parity.json` atomically. Numbers that do not exist are null."""
    data = {
        "schema": SCHEMA,
        "model": result.label,
        "reference": result.reference,
        "environment": result.environment,
        "artifacts": [_entry(entry) for entry in result.entries],
        "advice": asdict(advise(result.entries)),
        "accepted": result.accepted,
    }
    text = json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def _entry(entry: Entry) -> dict[str, Any]:
    manifest = entry.artifact.manifest
    return {
        "format": manifest.variant.format,
        "variant": manifest.variant.name,
        "precision": manifest.variant.precision.value,
        "recipe": manifest.recipe,
        "manifest": manifest.sha256,
        "files": [asdict(item) for item in manifest.outputs],
        "bytes": entry.bytes,
        "weights": manifest.weights,
        "gates": [asdict(gate) for gate in entry.gates],
        "verdict": entry.judgement.verdict.value,
        "reasons": entry.judgement.reasons,
        "notes": entry.judgement.notes,
        "allow_degraded": entry.allow_degraded,
        "accepted": entry.accepted,
        "localisation": asdict(entry.localisation) if entry.localisation else None,
        "measurement": asdict(entry.measurement) if entry.measurement else None,
    }


def finite(value: Any) -> Any:
    """The same with null for numbers that do not exist."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
