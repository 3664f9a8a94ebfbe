"""`python -m export.locate MODEL`: where a model's checkpoint lies, as JSON, for other programs.

`runtimes` imports nothing of `export`; what takes any model there runs this as a process.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeproof.command import NAMED, EdgeproofCommand
from export.checkpoint import open_checkpoint
from export.job import derived_name
from export.sources import resolve


@click.command(cls=EdgeproofCommand, name="locate")
@click.argument("model")
@click.option("--revision", type=NAMED, help="Branch, tag or commit of a hub id.")
def main(model: str, revision: str | None) -> None:
    """Find MODEL, downloading or converting it where needed, and say where it is."""
    source = resolve(model, revision)
    checkpoint = open_checkpoint(source.path)
    found = {
        "path": str(source.path.absolute()),
        "name": source.name or derived_name(checkpoint),
        "repo": source.repo,
        "revision": source.revision,
        "found_by": None if Path(model).exists() else model,
    }
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
