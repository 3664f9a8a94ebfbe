"""`python -m runtimes.parity.report.schema`: write what docs/ says of parity.json out of the code.

That is docs/parity.schema.json, from the dataclasses of the result and `METRICS`, and the table of
metrics between the markers in docs/parity.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.display import markdown_row
from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.verdicts import SCHEMA
from runtimes.parity.metrics import Figure, Metric, figures
from runtimes.parity.report.document import ParityDocument
from runtimes.parity.report.json_schema import Definitions, Schema

SCHEMA_FILE, PAGE = "parity.schema.json", "parity.md"
BEGIN = "<!-- Metrics: written by `python -m runtimes.parity.report.schema` -->"
END = "<!-- End of metrics -->"
TITLES = ("name", "unit", "better", "interval", "meaning")


@click.command(cls=EdgeproofCommand, name="schema")
@click.option(
    "--docs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("docs"),
    show_default=True,
    help="The folder with parity.md.",
)
def main(docs: Path) -> None:
    """Write parity.schema.json and the table of metrics in parity.md.

    \b
    Example:
      python -m runtimes.parity.report.schema
    """  # noqa: D301
    page = docs / PAGE
    if not page.is_file():
        raise InputError(f"{page}: missing; run this where edgeproof's docs are, or name --docs")
    text = with_table(page.read_text("utf-8"), str(page))
    write_atomic(docs / SCHEMA_FILE, schema_text().encode())
    write_atomic(page, text.encode())


def schema() -> Schema:
    """The JSON Schema of parity.json."""
    definitions = Definitions()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edgeproof:parity:{SCHEMA.current}",
        "title": "parity.json",
        **definitions.object_of(ParityDocument),
        "$defs": dict(sorted(definitions.found.items())),
    }


def schema_text() -> str:
    """The schema as its file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def metrics_table() -> str:
    """The table of metrics in Markdown, without a line end at its end."""
    rows = (TITLES, ["---"] * len(TITLES), *map(_row, figures()))
    return "\n".join(map(markdown_row, rows))


def with_table(page: str, source: str) -> str:
    """A page with the table of metrics of now between its markers; `source` names it in errors.

    Raises:
        InputError: there are no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{source}: has no place for the metrics, {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{metrics_table()}\n{END}{after}"


def _row(figure: Figure) -> tuple[str, ...]:
    better = "more" if figure.more_is_better else "less"
    interval = figure.interval.name if isinstance(figure, Metric) else "–"
    return f"`{figure.name}`", figure.unit.name, better, interval, figure.text


if __name__ == "__main__":
    main()
