"""Folders of one machine in results that another one reads: names stand for them meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

ARTIFACT, CHECKPOINT = "<artifact>", "<checkpoint>"


def replaced(value: Any, others: Mapping[str, str]) -> Any:
    """The same plain data with other texts in place of some, also within longer ones."""
    if isinstance(value, str) and not isinstance(value, Enum):
        for old, new in others.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {key: replaced(item, others) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(item, others) for item in value]
    return value
