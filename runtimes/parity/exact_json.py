"""Results as JSON that gives the same numbers again, NaN and infinities too, which JSON has not."""

from __future__ import annotations

import json
import math
from typing import Any

from edgeproof.files.own import json_object

NUMBER = "float"  # the only key of an object that stands for a number which JSON has not


def to_exact(value: Any) -> str:
    """Plain data (`dataclasses.asdict`) as JSON."""
    return json.dumps(_plain(value), allow_nan=False)


def from_exact(text: bytes) -> Any:
    """What `to_exact` wrote, with lists for tuples.

    Raises:
        WrongJsonError: it is no JSON object.
    """
    return _numbers(json_object(text))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {NUMBER: str(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {NUMBER}:
            return float(value[NUMBER])
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value
