"""A GGUF file's metadata with checked types: a wrong one is an `InputError` that names the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeproof.errors import InputError

T = TypeVar("T")


class Metadata:
    """Key/value pairs of one file. Without a default, a key is required."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def value(self, key: str) -> Any:
        """The value as stored, or None."""
        return self._values.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return self._checked(key, str, default)

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        return self._checked(key, bool, default)

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer of any width."""
        value = self._checked(key, int, default)
        if isinstance(value, bool):
            raise self._wrong(key, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A float; a float32 as the shortest decimal that names it, so 1e-05 stays 1e-05."""
        with np.errstate(over="ignore"):
            value = float(str(np.float32(self._checked(key, float, default))))
        if not math.isfinite(value):
            raise self._wrong(key, "finite")
        return value

    def texts(self, key: str) -> list[str]:
        """An array of strings."""
        return self._checked(key, list, None)

    def integers(self, key: str) -> list[int] | None:
        """An array of integers, or None where the key is absent."""
        if key not in self._values:
            return None
        value = self._checked(key, np.ndarray, None)
        if value.dtype.kind not in "iu":
            raise self._wrong(key, "an array of integers")
        return [int(item) for item in value]

    def numbers(self, key: str) -> list[float]:
        """An array of finite floats."""
        value = self._checked(key, np.ndarray, None)
        if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise self._wrong(key, "an array of finite numbers")
        return [float(item) for item in value]

    def _checked(self, key: str, kind: type[T], default: T | None) -> T:
        value = self._values.get(key, default)
        if value is None:
            raise InputError(f"{self.path}: metadata {key} is missing; convert the model again")
        if not isinstance(value, kind):
            raise self._wrong(key, f"of type {kind.__name__}")
        return value

    def _wrong(self, key: str, expected: str) -> InputError:
        return InputError(f"{self.path}: metadata {key} should be {expected}; convert it again")
