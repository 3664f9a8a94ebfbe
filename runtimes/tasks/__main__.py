"""`edgeproof eval`: tasks of lm-evaluation-harness over exports, beside PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.run_record import RUN_RECORD, load_run_record
from edgeproof.command import EdgeproofCommand, root_option
from edgeproof.display import table_console
from edgeproof.errors import InputError
from edgeproof.files.space import require_files, require_spared
from edgeproof.verdicts import EVALUATION, REPORT, TaskScore, read_report, read_scores, write_scores
from edgeproof.verdicts.task_table import TITLES, cells
from runtimes.runtime_option import runtime_option
from runtimes.threads import threads_option

if TYPE_CHECKING:
    from runtimes.tasks.run import Asked, Evaluated

KEPT = "what was answered is kept: the same command goes on from there"


@click.command(cls=EdgeproofCommand, name="eval", kept=KEPT)
@click.argument(
    "artifacts", metavar="ARTIFACT…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--tasks", required=True, help="Tasks or groups of the harness, with commas between.")
@click.option(
    "--tasks-from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of tasks in the harness's format (YAML), which come before its own.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with TASK/SPLIT.jsonl (.json, .csv, .parquet) in place of data that tasks"
    " fetch.",
)
@click.option("--limit", type=click.IntRange(1), help="The first so many questions of each task.")
@click.option(
    "--against", is_flag=True, help="Ask PyTorch the same questions; the differences in pairs."
)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder for --against; default: what ROOT/run.json says.",
)
@click.option("--shots", type=click.IntRange(0), help="Examples before a question; default: the"
              " task's.")  # fmt: skip
@click.option("--chat", is_flag=True, help="Put questions through the export's chat template.")
@click.option("--one-turn", is_flag=True, help="With --chat: examples in the question's own turn.")
@click.option("--system", help="With --chat: the system message; else a text before all.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of written answers; default: the"
              " task's.")  # fmt: skip
@click.option(
    "--together",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Answers that are written at the same time, where the runtime can: faster, and rounded"
    " otherwise.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of what a task draws by chance.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Forget what these models have answered before.")
@click.option("--allow-task-code", is_flag=True, help="Run Python that tasks of --tasks-from name.")
@runtime_option("Run the artifacts in this runtime, such as webgpu.")
@root_option(": its run.json knows models, and their folders get evaluation.json")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the scores too.")
@threads_option
def main(
    artifacts: Sequence[Path],
    tasks: str,
    folder: Path | None,
    data: Path | None,
    limit: int | None,
    against: bool,
    checkpoint: Path | None,
    shots: int | None,
    chat: bool,
    one_turn: bool,
    system: str | None,
    max_tokens: int | None,
    together: int,
    seed: int,
    fresh: bool,
    allow_task_code: bool,
    runtime: str | None,
    root: Path,
    json_path: Path | None,
    threads: int,
) -> None:
    """Run tasks of EleutherAI's lm-evaluation-harness over exports, in their runtimes.

    With --against PyTorch answers the same questions, and what changed is told: the difference
    with its interval, McNemar's exact test, and the answers that are others.

    \b
    Examples:
      edgeproof eval artifacts/M/gguf/q8_0 --tasks arc_easy --limit 200 --against
      edgeproof eval out/onnx/q4 out/gguf/q4_0 --tasks mine --tasks-from ./tasks --checkpoint ./M
    """  # noqa: D301
    os.environ.setdefault("TQDM_DISABLE", "1")  # of the harness: the bar here is ours
    from runtimes.tasks.harness import Style
    from runtimes.tasks.questions import Asking, load_questions
    from runtimes.tasks.run import How, evaluate_all

    names = list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise InputError("--tasks: name at least one task")
    require_files(json_path)
    require_spared(json_path, reads=[])
    opened = [open_artifact(path) for path in artifacts]
    asked = [_asked(artifact, root, checkpoint, against=against) for artifact in opened]
    asking = Asking(limit, shots, chat, one_turn, system, max_tokens, seed)
    questions = load_questions(names, folder, asking, allow_code=allow_task_code, data=data)
    how = How(threads, Style(together, seed), runtime, fresh)
    scores: list[TaskScore] = []
    for item, found, new in evaluate_all(asked, questions, how):
        _say(found)
        scores += new
        if item.report is not None:
            _store(item.report, new)
        if json_path:
            write_scores(json_path, scores)
    _show(scores, _update_pages(asked))


def _asked(artifact: Artifact, root: Path, checkpoint: Path | None, *, against: bool) -> Asked:
    from runtimes.tasks.run import Asked

    if checkpoint is not None and not against:
        raise InputError("--checkpoint is for --against; give both or none")
    models = load_run_record(root).models if (root / RUN_RECORD).exists() else ()
    for model in models:
        if realpath(artifact.path) in (realpath(root / item.path) for item in model.everything):
            known = checkpoint or Path(model.checkpoint)
            return Asked(artifact, known if against else None, root / model.label / EVALUATION)
    if against and checkpoint is None:
        raise InputError(
            f"{root / RUN_RECORD} does not name {artifact.path}; give --checkpoint DIR"
        )
    return Asked(artifact, checkpoint, None)


def _store(path: Path, new: Sequence[TaskScore]) -> None:
    """Put scores to those that are there; of an export that was written anew only the new stay."""
    changed = {(score.format, score.variant): score.manifest for score in new}
    before = [
        score
        for score in read_scores(path)
        if changed.get((score.format, score.variant), score.manifest) == score.manifest
    ]
    write_scores(path, [*before, *new])


def _update_pages(asked: Sequence[Asked]) -> dict[str, float | None]:
    """Put what is stored into the pages of parity; each export's mean KL, by its manifest."""
    from runtimes.parity.report.tasks import mean_kls, tasks_section, update_page

    kl: dict[str, float | None] = {}
    for stored in dict.fromkeys(item.report for item in asked if item.report):
        report, shown = stored.with_name(REPORT), False
        page = report.with_suffix(".html")
        if report.is_file():
            found = mean_kls(read_report(report))
            shown = update_page(page, tasks_section(read_scores(stored), found))
            kl |= found
        click.echo(f"{stored}, and in {page}" if shown else f"{stored}")
    return kl


def _say(found: Evaluated) -> None:
    """What sharing beginnings saved."""
    if found.asked:
        click.echo(
            f"{found.name} in {found.ran}: {found.computed:,} of {found.asked:,} tokens computed,"
            " the others are beginnings that sequences share",
            err=True,
        )


def _show(scores: Sequence[TaskScore], kl: Mapping[str, float | None]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title in TITLES:
        table.add_column(title, justify="left" if title in TITLES[:3] else "right")
    for score in scores:
        table.add_row(*(Text(cell) for cell in cells(score, kl.get(score.manifest))))
    table_console().print(table)
    click.echo("95 % intervals in brackets; PyTorch and what follows it need --against")


if __name__ == "__main__":
    main()
