"""`python -m runtimes.recover.planned`: make what a plan's variants with `recover` are made from.

A recovered checkpoint is kept in the cache under a hash of all that its bytes depend on, so that
the same plan makes it once. Recoveries of one model share text and moments, as all recoveries do;
those of one goal are one checkpoint, whatever formats store it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from edgeproof.artifact.run_record import ModelRun, PlannedRecovery, RunRecord, load_run_record
from edgeproof.command import EdgeproofCommand, root_option
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from edgeproof.goal import Goal
from edgeproof.recovery import RECOVERY, Recovery, checkpoint_digest, read_recovery
from runtimes.child import run_module
from runtimes.located import Model
from runtimes.recover.__main__ import KEPT
from runtimes.recover.distill.wish import Distillation, checked_distillation
from runtimes.threads import threads_option

RECOVERED = "recovered"  # folder of the cache

Say = Callable[[str], None]


@click.command(cls=EdgeproofCommand, name="planned", kept=KEPT)
@root_option("; its run.json names what to recover")
@threads_option
def main(root: Path, threads: int) -> None:
    """Recover and export what the last `python -m export` left for later: variants with `recover`.

    What is there already is reused. `python -m runtimes.parity --recover` does this, and compares
    what it made; run it yourself to have the files without waiting for the comparison.

    \b
    Example:
      python -m export --plan benchmarks/recovered.toml
      python -m runtimes.recover.planned
    """  # noqa: D301
    if not make_planned(root, threads, click.echo):
        click.echo(f"{root}: the plan has no recovered variants")
        return
    code = run_module("export.recovered", root)
    if code:
        sys.exit(code)


def make_planned(root: Path, threads: int, say: Say) -> int:
    """Make every recovered checkpoint that the record asks for, and note where it lies.

    What is optional and cannot be made is taken out of the record. Returns how many were asked for.

    Raises:
        InputError: there is no record, or a model that cannot be recovered so.
        GateError: no size passes the gates that a plan asks for.
    """
    record = load_run_record(root)
    asked = sum(len(run.recovered) for run in record.models)
    for number, run in enumerate(record.models):
        made = []
        for recovery in run.recovered:
            reason = unfit(Path(run.checkpoint)) if recovery.goal.optional else None
            if reason is not None:
                say(f"recover {run.label} ({recovery.goal.text}): left out: {reason}")
                continue
            folder = recovered_checkpoint(run, recovery, threads, say)
            made.append(replace(recovery, checkpoint=str(folder), exported=False))
        models = list(record.models)
        models[number] = replace(run, recovered=tuple(made))
        record = RunRecord(tuple(models), record.gates)
        record.save(root)
    return asked


def unfit(original: Path) -> str | None:
    """Why no recovery of a model is possible, whatever its size; None if one is."""
    from runtimes.calibrate.decoder import read_structure
    from runtimes.recover.sizes import check_rows

    try:
        _, parameters = read_structure(original)
        check_rows(parameters)
    except InputError as error:
        return str(error)
    return None


def recovered_checkpoint(run: ModelRun, planned: PlannedRecovery, threads: int, say: Say) -> Path:
    """The folder of one recovery, in the cache."""
    from runtimes.recover.progress import Progress
    from runtimes.recover.request import checked_wish
    from runtimes.recover.run import Request, recover
    from runtimes.recover.targets import TARGETS

    goal, origin, original = planned.goal, planned.origin, Path(run.checkpoint)
    folder = place(original, planned, threads)
    found = read_recovery(folder)
    note = "  (unchanged, reused)"
    if found is None:
        note = ""
        target = TARGETS[goal.format]
        wish = checked_wish(target, goal.bits, goal.max_mb, goal.gate)
        model = Model(original, origin.name, origin.repo, origin.revision, origin.found_by)
        request = Request(model, target, wish, None, goal.tokens, threads, distillation(goal))
        recover(request, folder, Progress(lambda line: click.echo(line, err=True)))
        found = read_recovery(folder)
        assert found is not None, "a recovery writes its record"
    say(f"recover {run.label} ({goal.text}): {figures(found, folder)}  {folder}{note}")
    return folder


def place(original: Path, planned: PlannedRecovery, threads: int) -> Path:
    """Where the recovered checkpoint is kept; all that decides its bytes names the folder.

    But for a distilled one's the clock: it is made once on a machine.
    """
    from runtimes.recover.stages import versions
    from runtimes.recover.writer import copied

    beside = input_records(copied(original), cache_folder() / "digests", original)
    whole = {
        **recipe(planned, threads),
        "checkpoint": checkpoint_digest(original),
        "beside": [asdict(item) for item in beside],
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return cache_folder() / RECOVERED / key


def recipe(planned: PlannedRecovery, threads: int) -> dict[str, Any]:
    """What decides a recovery's bytes beside the model and the libraries, as JSON."""
    from runtimes.recover.own_text import TEXT_VERSION
    from runtimes.recover.stages import RECIPE_VERSION

    goal, trained = planned.goal, distillation(planned.goal)
    return {
        "recipe": RECIPE_VERSION,
        "text": TEXT_VERSION,
        "origin": asdict(planned.origin),
        "goal": asdict(replace(goal, optional=False)),
        "device": None if trained is None else trained.device,
        "threads": threads,
    }


def distillation(goal: Goal) -> Distillation | None:
    """The training that a goal asks for, on the device that is here; None: none."""
    return checked_distillation(goal.distill is not None, goal.distill, None)


def figures(found: Recovery, folder: Path) -> str:
    """What the recovery in a folder came to, in a line.

    Raises:
        InputError: its record is damaged.
    """
    try:
        held, trained = found.method["held_out"]["figures"], found.method.get("distilled")
        kl, low, high = held["mean_kl"]
        before = trained and trained["held_out_before"]["mean_kl"][0]
        bits, acceptance = float(found.method["bits"]), float(held["acceptance"][0])
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(
            f"{folder / RECOVERY}: damaged; edgeproof clean --cache={RECOVERED} removes it"
        ) from None
    counts = ", ".join(f"{count} × {grid}" for grid, count in Counter(found.grids.values()).items())
    start = "" if before is None else f", {before:.4f} undistilled"
    return (
        f"{bits:.3f} bits per weight ({counts}), held-out text of the model: mean KL {kl:.4f}"
        f" [{low:.4f}, {high:.4f}]{start}, acceptance {acceptance:.1%}"
    )


if __name__ == "__main__":
    main()
