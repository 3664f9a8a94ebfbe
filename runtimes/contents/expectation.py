"""Compare a parsed document with what every key of it has to be.

An expectation is a tree: dicts and lists as the document has them, plain values that must be
equal, and at any place one of the classes below. What is in the document and in no expectation is
a difference, and so is what is missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Numbers in float32 files are those of JSON to so much.
TOLERANCE = 1e-6
UNKNOWN, MISSING = "no such key", "nothing"
SHOWN = 60


@dataclass(frozen=True)
class Free:
    """Any value, or none: a label, say. `reason` says why nothing depends on it."""

    reason: str


@dataclass(frozen=True)
class Exercised:
    """Any value, or none: `by` is the part of a parity run that fails where it is wrong."""

    by: str


@dataclass(frozen=True)
class Expected:
    """A value that a rule allows; `text` says which, for people."""

    text: str
    allows: Callable[[Any], bool]


@dataclass(frozen=True)
class Maybe:
    """What a key must say if it is there: without it, its consumer assumes that very value."""

    expected: Any


@dataclass(frozen=True)
class Difference:
    """One key that is not as expected, as people read it."""

    key: str
    expected: str
    found: str

    @property
    def contradicts(self) -> bool:
        """Whether the key is known and there, and says something else."""
        return self.expected != UNKNOWN and self.found != MISSING


def differences(said: Any, expected: Any, key: str = "") -> Iterator[Difference]:
    """Every key of a document that is wrong, missing, or accounted for by nothing."""
    if isinstance(expected, Free | Exercised):
        return
    if isinstance(expected, Maybe):
        yield from differences(said, expected.expected, key)
    elif isinstance(expected, Expected):
        if not _allows(expected, said):
            yield Difference(key, expected.text, shown(said))
    elif isinstance(expected, Mapping) and isinstance(said, Mapping):
        yield from _of_keys(said, expected, key)
    elif _is_list(expected) and _is_list(said):
        yield from _of_items(said, expected, key)
    elif not equal(said, expected):
        yield Difference(key, *_excerpts(expected, said))


def leaves(said: Any, expected: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, what accounts for it) of every leaf of a document: a class from above, or a value."""
    if isinstance(expected, Maybe):
        yield from leaves(said, expected.expected, key)
    elif isinstance(expected, Mapping) and isinstance(said, Mapping):
        for name, value in said.items():
            if name in expected:
                yield from leaves(value, expected[name], _path(key, name))
    elif _is_list(expected) and _is_list(said):
        for index, (value, wanted) in enumerate(zip(said, expected, strict=False)):
            yield from leaves(value, wanted, f"{key}[{index}]")
    else:
        yield key, expected


def equal(said: Any, expected: Any) -> bool:
    """Equal values of one kind; a whole number may be written as a float, and the reverse."""
    if isinstance(said, bool) or isinstance(expected, bool):
        return said is expected
    if isinstance(said, int | float) and isinstance(expected, int | float):
        return said == expected or (
            isinstance(said + expected, float) and math.isclose(said, expected, rel_tol=TOLERANCE)
        )
    return type(said) is type(expected) and bool(said == expected)


def shown(value: Any) -> str:
    """A value in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _excerpts(expected: Any, said: Any) -> tuple[str, str]:
    """Both values; of long texts, where they part."""
    if isinstance(said, str) and isinstance(expected, str):
        pairs = zip(said, expected, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(said), len(expected)))
        start = max(0, same - SHOWN // 4)
        return shown(expected[start:]), shown(said[start:])
    return shown(expected), shown(said)


def _of_keys(
    said: Mapping[str, Any], expected: Mapping[str, Any], key: str
) -> Iterator[Difference]:
    for name, value in said.items():
        if name in expected:
            yield from differences(value, expected[name], _path(key, name))
        else:
            yield Difference(_path(key, name), UNKNOWN, shown(value))
    for name, wanted in expected.items():
        if name not in said and not isinstance(wanted, Free | Exercised | Maybe):
            text = wanted.text if isinstance(wanted, Expected) else shown(wanted)
            yield Difference(_path(key, name), text, MISSING)


def _of_items(said: Sequence[Any], expected: Sequence[Any], key: str) -> Iterator[Difference]:
    for index, (value, wanted) in enumerate(zip(said, expected, strict=False)):
        yield from differences(value, wanted, f"{key}[{index}]")
    if len(said) != len(expected):
        yield Difference(key, f"{len(expected)} entries", f"{len(said)} entries")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _path(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _allows(expected: Expected, said: Any) -> bool:
    try:
        return expected.allows(said)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError):
        return False  # of another kind altogether
