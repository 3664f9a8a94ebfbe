"""The day of a run, for what people read of it later."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from edgeproof.errors import InputError

# https://reproducible-builds.org/specs/source-date-epoch/
EPOCH = "SOURCE_DATE_EPOCH"


def day() -> str:
    """Today in UTC, as 2026-11-29; where SOURCE_DATE_EPOCH is set, the day of that second.

    Raises:
        InputError: it is set to something else than seconds.
    """
    said = os.environ.get(EPOCH)
    if not said:
        return datetime.now(timezone.utc).date().isoformat()
    try:
        return datetime.fromtimestamp(int(said), timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise InputError(f"{EPOCH} is {said!r}, not seconds since 1970") from None
