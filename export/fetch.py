"""`python -m export.fetch REPO FILE…`: files of a repository of the hub, for other programs.

`runtimes` imports nothing of `export`; what takes files of the hub there runs this as a process.
"""

from __future__ import annotations

import json

import click

from edgeproof.command import NAMED, EdgeproofCommand
from export.sources.hub_files import fetch, listing


@click.command(cls=EdgeproofCommand, name="fetch")
@click.argument("repo")
@click.argument("files", nargs=-1)
@click.option("--revision", type=NAMED, help="Branch, tag or commit; with FILES the commit's hash.")
def main(repo: str, files: tuple[str, ...], revision: str | None) -> None:
    """Say which files REPO has at a revision; with FILES, fetch these and say where they lie."""
    if files:
        found: dict[str, str | list[str]] = {
            "folder": str(fetch(repo, revision or "", files).absolute())
        }
    else:
        there = listing(repo, revision)
        found = {
            "commit": there.commit,
            "files": list(there.files),
            "tags": list(there.tags),
        }
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
