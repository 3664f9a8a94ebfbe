"""`python -m export.clean`: remove what an export would not keep anyway, and what is cached."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.display import megabytes, printable
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_contents, cache_folder
from edgeproof.files.lock import exclusive
from edgeproof.files.space import stored_bytes
from export.upkeep import left_overs, states, target_of

EVERYTHING = "all"


@click.command(cls=EdgeproofCommand, name="clean")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default=Path("artifacts"))
@click.option(
    "--stale",
    is_flag=True,
    help="Artifacts of another checkpoint or version of edgeproof, damaged ones, and what killed"
    " runs left.",
)
@click.option(
    "--cache",
    "kind",
    is_flag=False,
    flag_value=EVERYTHING,
    metavar="[KIND]",
    help="All of the cache, or one kind that `status --cache` lists: --cache=recover. It is made"
    " or fetched again when it is needed.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
def main(root: Path, stale: bool, kind: str | None, dry_run: bool) -> None:
    """Remove stale artifacts, and what is cached.

    `make clean` removes all artifacts.
    """
    if not stale and kind is None:
        raise InputError("nothing to do: say --stale or --cache")
    verb = "would remove" if dry_run else "removed"
    if kind is not None:
        _empty_cache(kind, verb, dry_run)
    if stale:
        _remove_stale(root, verb, dry_run)


def _empty_cache(wanted: str, verb: str, dry_run: bool) -> None:
    """Remove what the cache holds of a kind, or everything.

    Raises:
        InputError: there is no such kind.
    """
    kinds = cache_contents()
    chosen = [kind for kind in kinds if wanted in (kind.name, EVERYTHING)]
    if not chosen and wanted != EVERYTHING:
        known = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(f"--cache={wanted}: the cache, {cache_folder()}, holds {known}")
    for kind in chosen:
        for path in () if dry_run else sorted(kind.iterdir()):
            _remove(path, path)
        click.echo(f"{verb}: {kind} ({megabytes(kinds[kind])} MB)")


def _remove_stale(root: Path, verb: str, dry_run: bool) -> None:
    for item in states(root, check=True):
        if item.stale is not None and (dry_run or _remove(item.path, item.path)):
            told = f"{verb}: {item.path} ({megabytes(item.bytes)} MB): {item.stale}"
            click.echo(printable(told))
    for path in left_overs(root):
        size = stored_bytes(path)
        if dry_run or _remove(path, target_of(path)):
            told = f"{verb}: {path} ({megabytes(size)} MB): left over by a run that was killed"
            click.echo(printable(told))


def _remove(path: Path, target: Path) -> bool:
    """Remove a folder or file, unless a run that was writing `target` has changed it meanwhile."""
    before = path.lstat().st_ino
    with exclusive(target):
        same = os.path.lexists(path) and path.lstat().st_ino == before
        if same and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif same:
            path.unlink()
    return same


if __name__ == "__main__":
    main()
