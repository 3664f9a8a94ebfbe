"""Read `quantization_config`: values of other types are refused by their key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from edgeproof.errors import InputError

WHERE = "config.json: quantization_config"
MOST = 1 << 31


def whole(settings: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number.

    Raises:
        InputError: it is none, or missing where there is no default.
    """
    value = settings.get(key)
    value = default if value is None else value
    if not is_whole(value):
        raise InputError(f"{WHERE}: {key} must be a whole number, it is {value!r}")
    return value


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, and none that no size can have."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST


def word(settings: Mapping[str, Any], keys: Sequence[str], default: str) -> str:
    """The first of these keys that is there, in lower case.

    Raises:
        InputError: it is no text.
    """
    for key in keys:
        value = settings.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise InputError(f"{WHERE}: {key} must be a text, it is {value!r}")
            return value.lower()
    return default


def table(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; {} where it is null or missing.

    Raises:
        InputError: it is something else.
    """
    value = settings.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{WHERE}: {key} must be an object, it is {value!r}")
    return value
