"""A package that brings a format, as pip would leave it, and the console script."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from edgeproof.cli import main


def declare(site: Path, **points: str) -> Path:
    """The package `toy-format` in `site`, with entry points `formats` and `readers`."""
    info = site / "toy_format-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-format\nVersion: 1.0\n")
    groups = [f"[edgeproof.{group}]\n{lines}\n" for group, lines in points.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return site


def edgeproof(*arguments: str | Path) -> Result:
    """Run the console script in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
