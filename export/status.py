"""`python -m export.status`: what lies in the artifacts' folder, how it came out, what is stale."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.display import megabytes, printable
from edgeproof.files.cache import cache_contents, cache_folder
from export.upkeep import left_overs, states, unmade


@click.command(cls=EdgeproofCommand, name="status")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default=Path("artifacts"))
@click.option(
    "--check", is_flag=True, help="Read every byte, not only of files whose size or time changed."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--cache",
    is_flag=True,
    help="What the cache holds instead, kind by kind: all of it can be made or fetched again.",
)
def main(root: Path, check: bool, as_json: bool, cache: bool) -> None:
    """List artifacts with their verdicts, and which an export would make again.

    Up to date is what an export of the same model and variant would reuse.
    """
    if cache:
        _show_cache(as_json)
        return
    found, missing = states(root, check=check), unmade(root)
    if as_json:
        rows = [{**asdict(item), "path": str(item.path)} for item in [*found, *missing]]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for item in found:
        unknown = item.unknown and f"cannot tell whether an export would keep it: {item.unknown}"
        notes = [
            text for text in (item.outdated, item.stale and f"stale: {item.stale}", unknown) if text
        ]
        line = (
            f"{item.model}  {item.name:20}{megabytes(item.bytes):>9} MB  {item.verdict:13}"
            f"{'; '.join([*notes, *(['up to date'] if item.up_to_date else [])])}"
        )
        click.echo(printable(line))
    for item in missing:
        line = f"{item.model}  {item.name:20}{'–':>9} MB  missing: {item.unknown}"
        click.echo(printable(line))
    for path in left_overs(root):
        click.echo(printable(f"left over by a run that was killed: {path}"))
    if not found and not missing:
        click.echo(f"{root}: no artifacts")


def _show_cache(as_json: bool) -> None:
    kinds = cache_contents()
    if as_json:
        click.echo(json.dumps({kind.name: size for kind, size in kinds.items()}, indent=2))
        return
    for kind, size in kinds.items():
        click.echo(f"{kind.name:20}{megabytes(size):>9} MB")
    click.echo(f"{cache_folder()}: {megabytes(sum(kinds.values()))} MB")


if __name__ == "__main__":
    main()
