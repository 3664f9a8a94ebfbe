"""`python -m tests.digests`: write the record anew."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.digests import record
from tests.digests.tiny import CALLS, tiny_digests


def main() -> None:
    """Export, and record the digests of all files."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-digests-") as name:
        folder = Path(name)
        os.environ["EDGEPROOF_CACHE"] = str(folder / "cache")
        groups = {name: tiny_digests(name, folder / name) for name in CALLS}
        record.write(record.TINY, groups, record.LIBRARIES)


if __name__ == "__main__":
    main()
