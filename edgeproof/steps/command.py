"""`edgeproof run`: export a plan and compare it, as steps on this machine or on a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand, out_option
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.space import require_files, require_folder
from edgeproof.processes import run
from edgeproof.steps.executors.executor import Executor
from edgeproof.steps.executors.local import LocalExecutor
from edgeproof.steps.machine import cores, memory_mb
from edgeproof.steps.planned import (
    NOTHING_RECOVERED,
    AskedRecoveries,
    AskedRecovering,
    PlannedExports,
    PlannedMeasuring,
    PlannedRecovering,
    heard,
    told,
)
from edgeproof.steps.run import Wanted, carry_out
from edgeproof.steps.step import Kind
from edgeproof.steps.store import Store, open_store

STORE = "steps"  # folder of the cache
SERIAL, LOCAL, DASK = "serial", "local", "dask"
EXPORTS, MEASURING = "export.steps.plan", "runtimes.parity.steps.plan"
RECOVERING = "runtimes.recover.steps.plan"
NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")
KEPT = "steps that are done are kept in the store; the same command goes on with the rest"


@click.command(cls=EdgeproofCommand, name="run", kept=KEPT)
@click.argument("plan", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--executor",
    type=click.Choice([SERIAL, LOCAL, DASK]),
    default=LOCAL,
    show_default=True,
    help="serial: one step after the other; local: processes on this machine, by its cores and"
    " memory; dask: a Dask cluster.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a Dask cluster that is there, as tcp://host:8786; without, one is begun here.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Steps at a time.  [default: cores / threads]"
)
@click.option(
    "--threads",
    type=click.IntRange(1, 512),
    envvar="EDGEPROOF_THREADS",
    help="Of each step that measures; they are part of the result.  [default:"
    " EDGEPROOF_THREADS, else all cores with serial and 1 otherwise]",
)
@click.option(
    "--store",
    metavar="FOLDER|URL",
    help="Where steps put their results and find those of others.  [default: in the cache]",
)
@click.option(
    "--needs",
    "further",
    metavar="STEP NAME=AMOUNT",
    type=(str, str),
    multiple=True,
    help="A resource of Dask workers that steps of a kind (reference, recover, export, footprint,"
    " measure) also take, as --needs measure licence=1. Repeatable.",
)
@click.option("--model", "-m", "models", multiple=True, help="Instead of the plan's. Repeatable.")
@click.option("--revision", help="Branch, tag or commit for the models given by --model.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    help="Only the plan's variants of this format. Repeatable.",
)
@click.option("--verify/--no-verify", default=True, show_default=True, help="Reopen new files.")
@click.option(
    "--recover/--no-recover",
    default=None,
    help="Make the plan's recovered variants of all models, or of none. By default of models that"
    " the plan recovers (recover-up-to).",
)
@out_option("Root folder of the artifacts and reports.")
@click.option("--budget", default="default", show_default=True, help="fast, default or full.")
@click.option(
    "--text", type=click.Path(dir_okay=False, path_type=Path), help="Your own text instead."
)
@click.option("--positions", type=click.IntRange(1), help="Compare about this many positions.")
@click.option("--whole-text", is_flag=True, help="Run every artifact on all of the text.")
@click.option(
    "--footprint/--no-footprint",
    default=True,
    show_default=True,
    help="Measure memory, load time and speed of each artifact, alone on its machine.",
)
@click.option(
    "--device",
    metavar="auto|cuda|mps|cpu",
    default="auto",
    show_default=True,
    help="Where PyTorch computes the reference, on every machine alike; auto: on a GPU where this"
    " one has one.",
)
@click.option("--localise", is_flag=True, help="Say of every artifact where it diverges.")
@click.option("--allow-degraded", is_flag=True, help="DEGRADED artifacts do not fail the run.")
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML for CI."
)
@click.option(
    "--markdown",
    "markdown_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a Markdown summary.",
)
def main(
    plan: Path | None,
    executor: str,
    scheduler: str | None,
    workers: int | None,
    threads: int | None,
    store: str | None,
    further: tuple[tuple[str, str], ...],
    models: tuple[str, ...],
    revision: str | None,
    formats: tuple[str, ...],
    verify: bool,
    recover: bool | None,
    out: Path,
    budget: str,
    text: Path | None,
    positions: int | None,
    whole_text: bool,
    footprint: bool,
    device: str,
    localise: bool,
    allow_degraded: bool,
    no_html: bool,
    junit: Path | None,
    markdown_path: Path | None,
) -> None:
    """Export a plan, run every file and compare it with PyTorch, in one command.

    Its steps (the reference, each recovered checkpoint, each export, its footprint, its comparison)
    are done once: what the store has is not done again, and what a run that was ended has done is
    there. One that fails stops only those that need it, and the report says why.

    \b
    Examples:
      edgeproof run
      edgeproof run edgeproof.toml --executor serial
      edgeproof run --model ./my-checkpoint --format gguf --budget fast
      edgeproof run --executor dask --scheduler tcp://node1:8786 --store s3://bucket/steps
    """  # noqa: D301
    begun = time.monotonic()
    if executor != DASK and (scheduler or further):
        raise InputError("--scheduler and --needs are for --executor dask")
    if scheduler and store is None:
        raise InputError("--scheduler needs --store: a folder or URL that its workers reach too")
    if executor == DASK:
        import distributed  # noqa: F401 - the extra is said before anything is done
    require_folder(out)
    require_files(junit, markdown_path)
    place = open_store(str(cache_folder() / STORE) if store is None else store)
    number = threads or (cores() if executor == SERIAL else 1)
    exports = heard(
        PlannedExports,
        _asked(
            EXPORTS,
            *_options("plan", plan),
            *_options("model", *models),
            *_options("revision", revision),
            *_options("format", *formats),
            "--verify" if verify else "--no-verify",
            *([] if recover is None else ["--recover" if recover else "--no-recover"]),
        ),
    )
    measuring = heard(
        PlannedMeasuring,
        _asked(
            MEASURING,
            *_options("budget", budget),
            *_options("text", text),
            *_options("positions", positions),
            *_options("threads", number),
            *_options("device", device),
            "--footprint" if footprint else "--no-footprint",
            *(["--localise"] if localise else []),
            *(["--whole-text"] if whole_text else []),
            *_others(exports),
        ),
    )
    wanted = Wanted(
        out, allow_degraded, not no_html, junit, markdown_path, _further(further), begun
    )
    count = workers or max(1, cores() // number)
    if executor == DASK:
        doer: Executor = _dask(place, scheduler, count)
    else:
        count = 1 if executor == SERIAL else count
        doer = LocalExecutor(place, count, max(cores(), count * number), memory_mb())
    sys.exit(carry_out(exports, measuring, _recovering(exports, number), place, doer, wanted))


def _others(exports: PlannedExports) -> list[str]:
    """The runtimes beside their formats' usual ones that a plan asks for, as options."""
    asked = {
        (str(item.params["format"]), item.runtime)
        for model in exports.models
        for item in (*model.exports, *(e for found in model.recovered for e in found.exports))
        if item.runtime is not None
    }
    return [text for form, name in sorted(asked) for text in ("--other", form, name)]


def _recovering(exports: PlannedExports, threads: int) -> PlannedRecovering:
    """What the recoveries of a plan take; it is asked only where there are any: PyTorch is loaded.

    Raises:
        InputError: one that cannot be made.
    """
    models = tuple(
        AskedRecoveries(
            model.label,
            model.checkpoint.folder,
            tuple(found.recovery for found in model.recovered),
        )
        for model in exports.models
    )
    if not any(model.recoveries for model in models):
        return NOTHING_RECOVERED
    asked = told(AskedRecovering(threads, models))
    return heard(PlannedRecovering, _asked(RECOVERING, given=asked))


def _dask(store: Store, scheduler: str | None, workers: int) -> Executor:
    """A cluster.

    Raises:
        InputError: Dask is not installed.
    """
    from edgeproof.steps.executors.cluster import DaskExecutor

    return DaskExecutor(store.url, scheduler, workers, lambda text: click.echo(text, err=True))


def _further(given: Sequence[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Kind of step → resource → amount.

    Raises:
        InputError: an unknown kind, or no amount.
    """
    kinds = [kind.value for kind in Kind if kind is not Kind.GIVEN]
    found: dict[str, dict[str, float]] = {}
    for kind, text in given:
        name, _, amount = text.partition("=")
        if kind not in kinds:
            raise InputError(f"--needs {kind}: no such step; choose from {', '.join(kinds)}")
        if not name or not NUMBER.fullmatch(amount):
            raise InputError(f"--needs {kind} {text}: give a name and an amount, as gpu=1")
        found.setdefault(kind, {})[name] = float(amount)
    return found


def _options(name: str, *values: object) -> Sequence[str]:
    return [f"--{name}={value}" for value in values if value is not None]


def _asked(module: str, *options: str, given: str | None = None) -> str:
    """What a command of ours answers on its stdout; it is `given` a text on its stdin.

    Raises:
        InputError: what it refuses.
    """
    done = run(
        [sys.executable, "-m", module, *options],
        given=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        last = lines[-1].removeprefix("error: ") if lines else f"{module} has failed"
        raise InputError(last.partition("; python -m ")[0])  # whose --help is not this command's
    for line in lines:
        click.echo(line, err=True)
    return done.stdout
