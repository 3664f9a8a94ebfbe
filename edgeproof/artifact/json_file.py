"""The JSON files of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeproof.checkpoints.json_object import parse_object
from edgeproof.errors import DamagedExportError


def read_json(path: Path) -> dict[str, Any]:
    """A parsed JSON object.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedExportError(f"{path}: cannot be read ({error})") from None
