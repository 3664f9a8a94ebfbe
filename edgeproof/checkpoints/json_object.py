"""Read a JSON object of a checkpoint, whatever somebody put there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json


def read_object(path: Path) -> dict[str, Any]:
    """The parsed file.

    Raises:
        InputError: it cannot be read, is no JSON object, or has text that no file can hold.
    """
    try:
        data = path.read_bytes()
        return parse_object(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8.

    Raises:
        ValueError: it is none, nests too deep, or escapes half a character.
    """
    value = parse_json(data.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    if b"\\ud" in data or b"\\uD" in data:  # the only way to half a character
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it escapes half a character") from None
    return value
