"""`python -m runtimes.audit`: what is in files of any maker, how far they are from the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeproof.command import NAMED
from edgeproof.display import table_console
from edgeproof.errors import GateError, InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.space import require_files, require_spared
from runtimes.adapter import OptionalModule
from runtimes.audit import gguf, hub
from runtimes.audit.day import day
from runtimes.audit.inspection import Inspection, Origin
from runtimes.audit.receipt import require_receipt, write_receipt
from runtimes.audit.subjects import Found, found_in
from runtimes.computing import Computing, computing_options
from runtimes.located import located
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.parity.watch import journal_of
from runtimes.parity.watched import WatchedCommand, watched_options
from runtimes.runtime_option import runtime_option
from runtimes.threads import threads_option

if TYPE_CHECKING:
    from runtimes.audit.run import Audit

KEPT = (
    "what PyTorch said and what was found of each file that is done are kept; the same command goes"
    " on"
)
REPORT = OptionalModule("runtimes.audit.report", ("rich",), "parity")
BADGE = OptionalModule("runtimes.audit.badge", ("scipy",), "parity")
PAGE = OptionalModule("runtimes.parity.report.html", ("matplotlib", "scipy"), "parity")


@click.command(cls=WatchedCommand, name="audit", kept=KEPT, module="runtimes.audit")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--against",
    type=NAMED,
    metavar="DIR|FILE.gguf|HUB|bundled",
    help="The original: whatever --model of the exporters takes.",
)
@click.option(
    "--revision", type=NAMED, help="Branch, tag or commit of those FILES that are on the hub."
)
@click.option(
    "--against-revision", type=NAMED, help="Branch, tag or commit, where --against is a hub id."
)
@click.option("--inspect", is_flag=True, help="Only say what is in FILES; nothing is run.")
@text_options
@click.option("--allow-degraded", is_flag=True, help="DEGRADED files do not fail the run.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all of it as JSON; the page goes beside it, with its name and .html.",
)
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option(
    "--markdown",
    "markdown_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the ranking as a Markdown table.",
)
@click.option(
    "--badge",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was found of one file as a small SVG, for its model card.",
)
@click.option(
    "--receipt",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write parity.json and the hashes of FILES into this folder, for `release sign`.",
)
@runtime_option("Run FILES in this runtime, such as openvino, not in their format's usual one.")
@click.option(
    "--positions",
    type=click.IntRange(1),
    help="Compare about this many positions, not the whole text: for slow runtimes.",
)
@click.option(
    "--whole-text",
    is_flag=True,
    help="Run every file on all of the text, also where its first part has decided that it is bad.",
)
@click.option(
    "--footprint/--no-footprint",
    default=True,
    show_default=True,
    help="Measure memory, load time and speed of each file in a process of its own.",
)
@click.option("--localise", is_flag=True, help="Say of every file where it diverges.")
@computing_options
@threads_option
@watched_options("a file")
def main(
    files: tuple[str, ...],
    against: str | None,
    revision: str | None,
    against_revision: str | None,
    inspect: bool,
    budget: str,
    text: Path | None,
    allow_degraded: bool,
    json_path: Path | None,
    no_html: bool,
    markdown_path: Path | None,
    badge: Path | None,
    receipt: Path | None,
    runtime: str | None,
    positions: int | None,
    whole_text: bool,
    footprint: bool,
    localise: bool,
    reference_weights: str,
    device: str,
    threads: int,
    journal: Path | None,
    crashed: tuple[tuple[str, str, str], ...],
) -> None:
    """Say what is in files of any maker, and how far they are from the original.

    FILES are .gguf files (a file of splits stands for all of them; an Ollama blob needs no
    suffix) and folders: of ONNX graphs as transformers.js, Optimum and ONNX Runtime GenAI have
    them, where each graph is a file of its own, MLC's or MLX's. They may be on the hub, by the
    name of a repository, of a file in it, or of a folder of files. They need no edgeproof.json:
    what each one is follows from its bytes. First it is said what is in each. Then each is run
    in its runtime and compared with the original as by `edgeproof parity`, by the gates of the
    class that most of its weights are of, whatever its label says; the closest comes first.
    Exit code 1: a file did not pass.

    \b
    Examples:
      edgeproof audit model-Q4_K_M.gguf --inspect
      edgeproof audit a-Q4_K_M.gguf b-Q4_K_M.gguf --against ./my-model
      edgeproof audit ./model-onnx --against org/model --budget fast
      edgeproof audit a.gguf b.gguf --against model-f16.gguf --json audit.json
      edgeproof audit org/model-GGUF/model-Q4_K_M.gguf --revision v1.0 --against org/model
      edgeproof audit mlx-community/model-4bit --against org/model
      edgeproof audit model-Q4_0.gguf --against org/model --runtime openvino
      edgeproof audit model-Q4_K_M.gguf --against org/model --badge badge.svg --receipt receipt
    """  # noqa: D301
    suite, today = chosen_suite(budget, text), day()
    if against is None and not inspect:
        raise InputError("--against MODEL is needed, the original; or --inspect, to run nothing")
    if inspect and any((against, markdown_path, badge, receipt, runtime)):
        raise InputError(
            "--inspect runs nothing: leave --against, --markdown, --badge, --receipt and --runtime"
            " out"
        )
    page = json_path.with_suffix(".html") if json_path and not (no_html or inspect) else None
    outputs = [path for path in (json_path, page, markdown_path, badge) if path]
    require_files(*outputs)
    require_receipt(receipt, outputs)
    found = found_in(*everything(files, revision))
    named = len(found.inspected) + len(found.refused)
    require_spared(*outputs, reads=[*_read(found.inspected), *_read_of(against), text])
    if badge is not None and named > 1:
        raise InputError(f"--badge is of one file, and FILES are {named}: audit each alone")
    say(found)
    report = REPORT.load()
    if inspect or against is None:
        _write(json_path, report.audit_json(found, None, None, (), today))
        for first in found.refused[:1]:
            count = len(found.refused)
            raise InputError(f"{count} of {named} files cannot be audited: {first.reason}")
        return
    from runtimes.audit.run import audit
    from runtimes.parity.run import Extent

    html = PAGE.load() if page else None
    model = located(against, against_revision)
    if against.endswith(gguf.SUFFIX):
        click.echo(f"note: {_itself(Path(against))}")
    extent = Extent(
        positions, footprint, localise, whole_text, journal_of(journal, crashed),
        computing=Computing(reference_weights, device),
    )  # fmt: skip
    done = audit(
        found, model, suite, threads, extent, allow_degraded=allow_degraded, runtime=runtime
    )
    name = model.found_by or against
    original = model.repo or model.name
    if against.endswith(gguf.SUFFIX):
        original = Path(against).name
    rows = show(done)
    _write(json_path, report.audit_json(found, name, done.result, done.ranking, today))
    _write(markdown_path, report.markdown(rows, name))
    if badge is not None:
        _write(badge, BADGE.load().svg_of(done, original, today))
    if receipt is not None:
        write_receipt(receipt, done, today)
        click.echo(f"receipt: {receipt}; edgeproof release sign {receipt} --key FILE signs it")
    if html is not None:
        _write(page, html.page(done.result, html.Ranking(report.TITLES, rows)))
    refuse(done)


def everything(files: Sequence[str], revision: str | None) -> tuple[list[Path], list[Origin]]:
    """Paths of what is named, and where on the hub it is from; what is there only is fetched.

    Raises:
        InputError: it cannot be, or a revision is given and nothing is on the hub.
    """
    names = {text: hub.on_hub(text) for text in files}
    if revision and not any(names.values()):
        raise InputError(f"--revision {revision} applies to files on the hub, and none of FILES is")
    paths: list[Path] = []
    origins: list[Origin] = []
    for text, named in names.items():
        if named is None:
            paths.append(Path(text))
            continue
        click.echo(f"asking the hub for {named}", err=True)
        found, origin = hub.fetched(named, revision)
        paths += found
        origins.append(origin)
    return paths, origins


def _read(found: Sequence[Inspection]) -> list[Path]:
    return [item.folder / name for item in found for name in item.files]


def _read_of(against: str | None) -> list[Path]:
    """The files of an original that is a folder or a file."""
    path = Path(against or "")
    if against is None or not path.exists():
        return []
    return [path] if path.is_file() else [item for item in path.iterdir() if item.is_file()]


def _itself(path: Path) -> str:
    """What it means that the original is a `.gguf` file."""
    text = f"the original is {path} itself, not what that file was made from"
    found = gguf.inspect(path) if path.is_file() else None
    if found is None or found.precision in gguf.FLOATS:
        return text
    return f"{text}; its weights are {next(iter(found.shares))}: what that cost them does not show"


def say(found: Found) -> None:
    """What is in each file, on the terminal, and which have nothing in them that can be read."""
    report = REPORT.load()
    for beside in found.passed_over:
        click.echo(f"note: passed over: {beside.reason}")
    for refused in found.refused:
        click.echo(f"cannot be audited: {refused.reason}")
    for item in found.inspected:
        click.echo(f"{item.format} {item.name}")
        for line in report.inspection_lines(item):
            click.echo(f"  {line}")


def show(done: Audit) -> list[list[str]]:
    """The parity report, and the ranking, whose rows are returned."""
    from runtimes.parity.report.terminal import print_result

    report, console = REPORT.load(), table_console()
    print_result(console, done.result)
    inspected = {item.name: item for item in done.inspected}
    rows: list[list[str]] = [*report.ranking_rows(done.ranking, inspected)]
    rows += report.unreadable_rows(done.result.unreadable)
    console.print(report.ranking_table(rows))
    return rows


def refuse(done: Audit) -> None:
    """Refuse an audit with a file that does not pass.

    Raises:
        GateError: naming them all.
    """
    refused = [item.entry for item in done.ranking if not item.entry.accepted]
    names = [f"{entry.name} {entry.judgement.verdict.value}" for entry in refused]
    names += [f"{item.folder} FAIL" for item in done.result.unreadable]
    if names:
        total = len(done.ranking) + len(done.result.unreadable)
        raise GateError(f"{len(names)} of {total} files did not pass: {', '.join(names)}")


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        write_atomic(path, text.encode())
        click.echo(f"report: {path}")


if __name__ == "__main__":
    main()
