"""`python -m export.clean --stale`: remove what an export would not keep anyway."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand, run_main
from edgeproof.display import megabytes
from edgeproof.errors import InputError
from edgeproof.files.lock import exclusive
from export.upkeep import left_overs, states, target_of


@click.command(cls=EdgeproofCommand, name="clean")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default=Path("artifacts"))
@click.option(
    "--stale",
    is_flag=True,
    help="Artifacts of another checkpoint or version of edgeproof, damaged ones, and what killed"
    " runs left.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
def main(root: Path, stale: bool, dry_run: bool) -> None:
    """Remove stale artifacts. `make clean` removes all of them."""
    if not stale:
        raise InputError("nothing to do: say --stale")
    verb = "would remove" if dry_run else "removed"
    for item in states(root, check=True):
        if item.stale is not None and (dry_run or _remove(item.path, item.path)):
            click.echo(f"{verb}: {item.path} ({megabytes(item.bytes)} MB): {item.stale}")
    for path in left_overs(root):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if dry_run or _remove(path, target_of(path)):
            click.echo(f"{verb}: {path} ({megabytes(size)} MB): left over by a run that was killed")


def _remove(path: Path, target: Path) -> bool:
    """Remove a folder, unless a run that was writing `target` has changed it meanwhile."""
    before = path.stat().st_ino
    with exclusive(target):
        same = path.exists() and path.stat().st_ino == before
        if same:
            shutil.rmtree(path)
    return same


if __name__ == "__main__":
    run_main(main)
