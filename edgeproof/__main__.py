"""`python -m edgeproof`: the console script, for where it is not on the path."""

from __future__ import annotations

from edgeproof.cli import main

if __name__ == "__main__":
    main(prog_name="edgeproof")
