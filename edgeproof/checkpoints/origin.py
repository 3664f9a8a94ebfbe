"""The model that a checkpoint was made from, as its config.json remembers it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The hub's own rule for repository names: letters, digits, "-", "_", "." on both sides of "/".
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def recorded_base(config: Mapping[str, Any]) -> str | None:
    """The hub id that the model was loaded from before it was saved; None where there is none.

    It may be the model's own: older versions of transformers wrote `_name_or_path` in either case.
    """
    recorded = config.get("_name_or_path")
    return recorded if isinstance(recorded, str) and HUB_ID.fullmatch(recorded) else None
