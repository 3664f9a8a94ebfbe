"""`parity.json`: everything that was measured, as docs/parity.schema.json describes it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeproof.files.atomic import write_atomic
from runtimes.parity.report.document import document
from runtimes.parity.result import ModelResult


def write_json(path: Path, result: ModelResult) -> None:
    """Write `parity.json` atomically. Numbers that do not exist are null."""
    data = finite(asdict(document(result)))
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def finite(value: Any) -> Any:
    """The same with null for numbers that do not exist."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
