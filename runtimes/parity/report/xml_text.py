"""Text that XML can hold."""

from __future__ import annotations

import re

# XML 1.0 has no way to write these.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def legal(text: str) -> str:
    """The text with a replacement character for each that XML forbids."""
    return FORBIDDEN.sub("\ufffd", text)
