"""`python -m export.mlx`."""

from __future__ import annotations

from export.command import format_command
from export.mlx import FORMAT

main = format_command(FORMAT)

if __name__ == "__main__":
    main()
