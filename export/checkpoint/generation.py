"""What a checkpoint says about sampling."""

from __future__ import annotations

from typing import Any

# As the SmolLM cards recommend it, where generation_config.json says nothing else.
TEMPERATURE = 0.2
TOP_P = 0.9


def number(value: Any, default: float) -> float:
    """A setting that may be absent or null."""
    return value if isinstance(value, (int, float)) else default
