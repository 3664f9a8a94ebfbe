"""What the files of an artifact say beside weights, and what they have to say, key by key.

A reader states of every file a `Content`: the parsed document as its consumer reads it, and what
the checkpoint implies for every key of it. A key or file that no reader accounts for is a
difference like a wrong value: nothing ships unchecked.
"""

from __future__ import annotations

from runtimes.contents.expectation import (
    Difference,
    Exercised,
    Expected,
    Free,
    Maybe,
    differences,
    leaves,
)
from runtimes.contents.files import Content, Topic
from runtimes.contents.origin import Origin

__all__ = [
    "Content",
    "Difference",
    "Exercised",
    "Expected",
    "Free",
    "Maybe",
    "Origin",
    "Topic",
    "differences",
    "leaves",
]
