"""What a model may be called in files and cards: as the hub has names, since releases use them."""

from __future__ import annotations

import re
from typing import Any

from edgeproof.errors import InputError

MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def model_name(value: Any, where: str) -> str | None:
    """The name, or None where none is given; `where` it is given, for the error.

    Raises:
        InputError: it is no such name.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not MODEL_NAME.fullmatch(value):
        raise InputError(f"{where} {value!r}: give letters, digits, '-', '_' and '.' only")
    return value
