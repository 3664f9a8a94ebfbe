"""Folders of one machine in results that another one reads: names stand for them meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from runtimes.parity.positions import WorstPosition
from runtimes.parity.replies import ReplyPair

ARTIFACT, CHECKPOINT, RECOVERED = "<artifact>", "<checkpoint>", "<recovered>"
# A name begins with one, so that in a text of ours two stand for it.
OPENING = "<"
# Around a folder in a text: no more of a name, as /a/b is neither /a/bc, /a/b.bak nor /x/a/b.
BEFORE, AFTER = r"(?<![\w.~+@#%-])", r"(?!\.?[\w~+@#%=-])"
# Prompts and what models answer: what looks like a folder or a name there is neither.
FOREIGN = (ReplyPair, WorstPosition)

Own = TypeVar("Own")


def with_names(value: Own, folders: Mapping[str, str]) -> Own:
    """A dataclass whose own texts have names in the places of some folders, also within longer."""
    return _changed(value, {**folders, OPENING: 2 * OPENING}, bounded=folders)


def with_folders(value: Own, names: Mapping[str, str]) -> Own:
    """What `with_names` was given, with the folders that names stand for here."""
    return _changed(value, {**names, 2 * OPENING: OPENING})


def _changed(value: Own, others: Mapping[str, str], bounded: Container[str] = ()) -> Own:
    longest_first = sorted(others, key=len, reverse=True)
    pattern = re.compile(
        "|".join(
            f"{BEFORE}{re.escape(text)}{AFTER}" if text in bounded else re.escape(text)
            for text in longest_first
        )
    )
    changed: Own = _each_text(value, lambda text: pattern.sub(lambda match: others[match[0]], text))
    return changed


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, (Enum, *FOREIGN)):
        return value
    if isinstance(value, str):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {item.name: getattr(value, item.name) for item in fields(value) if item.init}
        return replace(value, **{key: _each_text(item, change) for key, item in changed.items()})
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each_text(item, change) for item in value)
    return value
