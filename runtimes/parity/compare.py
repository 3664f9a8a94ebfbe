"""`edgeproof compare A B`: the difference of two exports of one model, with intervals."""

from __future__ import annotations

import json
from dataclasses import asdict
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.command import EdgeproofCommand, root_option
from edgeproof.display import table_console
from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.space import require_files, require_spared
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.parity.verdict import more_text, unknown_text
from runtimes.threads import threads_option

if TYPE_CHECKING:
    from rich.table import Table

    from runtimes.parity.comparison import Comparison, Row
    from runtimes.parity.intervals import Estimate

SCHEMA = 1


@click.command(cls=EdgeproofCommand, name="compare")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder that both were made from; default: what ROOT/run.json says of A.",
)
@root_option("")
@text_options
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures too.")
@threads_option
def main(
    first: Path,
    second: Path,
    checkpoint: Path | None,
    root: Path,
    budget: str,
    text: Path | None,
    json_path: Path | None,
    threads: int,
) -> None:
    """Is export B better than export A? Both run over the same text, in their runtimes.

    The interval is of the difference: each resample of the bootstrap draws the same documents for
    both. Where it holds zero, the text does not tell which one is better.

    \b
    Examples:
      edgeproof compare artifacts/M/gguf/q4_k_m artifacts/M/gguf/q4_k_m-imatrix
      edgeproof compare out/gguf/q4_0 out/mlc/q4f16_1 --checkpoint ./my-model
    """  # noqa: D301
    from runtimes.parity.comparison import compare_artifacts
    from runtimes.parity.report.json import finite

    require_files(json_path)
    require_spared(json_path, reads=[text])
    a, b = open_artifact(first), open_artifact(second)
    source = checkpoint or _checkpoint_of(root, a.path)
    result = compare_artifacts(source, chosen_suite(budget, text), a, b, threads)
    console = table_console()
    console.print(_table(result, _label(a), _label(b)))
    if json_path:
        data = {"schema": SCHEMA, "a": str(first), "b": str(second), **_figures(result)}
        figures = json.dumps(finite(data), indent=2, allow_nan=False)
        write_atomic(json_path, (figures + "\n").encode())


def _figures(result: Comparison) -> dict[str, Any]:
    rows = [{**asdict(row), "metric": row.metric.name} for row in result.rows]
    return {"documents": result.documents, "positions": result.positions, "rows": rows}


def _checkpoint_of(root: Path, artifact: Path) -> Path:
    for model in load_run_record(root).models:
        if realpath(artifact) in (realpath(root / item.path) for item in model.artifacts):
            return Path(model.checkpoint)
    raise InputError(f"{root / 'run.json'} does not name {artifact}; give --checkpoint DIR")


def _label(artifact: Artifact) -> str:
    variant = artifact.manifest.variant
    return f"{variant.format} {variant.name}"


def _table(result: Comparison, first: str, second: str) -> Table:
    from rich import box
    from rich.table import Table

    title = (
        f"A = {first}, B = {second}: {result.positions} positions in {result.documents} documents,"
        " KL in nats, 95 % intervals"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for name in ("A", "B", "B − A", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("better")
    names = {"A": first, "B": second}
    for row in result.rows:
        table.add_row(
            row.metric.name,
            f"{row.first.value:.4g}",
            f"{row.second.value:.4g}",
            f"{row.difference.value:+.4g}",
            _interval(row.difference),
            f"{row.better} ({names[row.better]})" if row.better else _undecided(row),
        )
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.4g} … {estimate.high:+.4g}"


def _undecided(row: Row) -> str:
    if not row.difference.known:
        return f"undecided: {unknown_text(row.metric.name, row.difference)}"
    if row.difference.low == row.difference.high:
        return "equal"
    more = more_text(row.difference.text_needed(0.0), row.difference.positions or 0)
    return f"undecided: {more}"


if __name__ == "__main__":
    main()
