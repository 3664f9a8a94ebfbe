"""The JSON files of an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """A parsed JSON object.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        parsed: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); export the model again") from None
    return parsed
