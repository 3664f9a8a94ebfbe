"""The JSON files of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """A parsed JSON object.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        parsed = parse_json(path.read_text("utf-8"))
        if not isinstance(parsed, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); export the model again") from None
    return parsed
