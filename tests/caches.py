"""Cache folders of tests: each its own, but for what TVM compiles."""

from __future__ import annotations

import os
from pathlib import Path

# Where this run's tests keep what TVM compiles: seconds each, found by the hash of all it depends
# on. conftest.py sets it.
COMPILED = "EDGEPROOF_TESTS_COMPILED"


def new_cache(folder: Path) -> str:
    """Make a cache folder in a test's own folder: the value of EDGEPROOF_CACHE."""
    cache, compiled = folder / "cache", Path(os.environ[COMPILED])
    compiled.mkdir(parents=True, exist_ok=True)
    cache.mkdir(exist_ok=True)
    if not (cache / "tvm").exists():
        (cache / "tvm").symlink_to(compiled, target_is_directory=True)
    return str(cache)
