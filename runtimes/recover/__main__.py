"""`python -m runtimes.recover`: a model's low-bit checkpoint that loses as little as it can."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeproof.command import NAMED, EdgeproofCommand
from edgeproof.goal import (
    GATES,
    LEAST_MB,
    LEAST_MINUTES,
    LEAST_TOKENS,
    MINUTES,
    MOST_BITS,
    MOST_MINUTES,
    TOKENS,
)
from runtimes.computing import DEVICES
from runtimes.recover.distill.wish import checked_distillation
from runtimes.recover.targets import TARGETS
from runtimes.threads import threads_option

if TYPE_CHECKING:
    from runtimes.recover.distill.kept import Outcome

KEPT = "what is done is kept in the cache; the same command goes on there"


@click.command(cls=EdgeproofCommand, name="recover", kept=KEPT)
@click.option(
    "--model", "-m", type=NAMED, required=True, help="Hub id, folder, .gguf file or built-in model."
)
@click.option("--revision", type=NAMED, help="Branch, tag or commit of a hub id.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(TARGETS)),
    required=True,
    help="Whose grids to mix: gguf IQ4_NL, Q5_0, Q8_0; onnx 4 and 8 bits; mlx 4, 5 and 8 bits; mlc"
    " q4f16_1; any: 4 bits that all of them store.",
)
@click.option(
    "--bits", type=click.FloatRange(1, MOST_BITS), help="All stored bytes × 8 / parameters."
)
@click.option("--max-mb", type=click.FloatRange(LEAST_MB), help="10⁶ bytes of the model's files.")
@click.option("--gate", type=click.Choice(GATES), help="The smallest that passes these gates.")
@click.option(
    "--calibration",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="UTF-8 text, or the calibration.json of another recovery; by default the model's own"
    " text.",
)
@click.option(
    "--tokens",
    type=click.IntRange(LEAST_TOKENS),
    default=TOKENS,
    show_default=True,
    help="Of that text.",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The checkpoint's folder.",
)
@click.option(
    "--distill", is_flag=True, help="Then train what the grids leave free to match the original."
)
@click.option(
    "--minutes",
    type=click.FloatRange(LEAST_MINUTES, MOST_MINUTES),
    metavar="N",
    help=f"How long to train; {MINUTES:g} by default.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="Where to train; auto, the default, is the first that is there.",
)
@threads_option
def main(
    model: str,
    revision: str | None,
    format_name: str,
    bits: float | None,
    max_mb: float | None,
    gate: str | None,
    calibration: Path | None,
    tokens: int,
    out: Path,
    distill: bool,
    minutes: float | None,
    device: str | None,
    threads: int,
) -> None:
    """Make a checkpoint on the grids of a few bits that is close to the original.

    The model's own text says which errors matter, and each matrix is rounded so that they are
    small; that needs no training. What is done is kept in the cache: killed or interrupted, the
    same command goes on there and ends with the same bytes.

    With --distill that is the start of a training on the same grids. The best checkpoint is kept,
    and the start if nothing is better. It ends when the minutes are over: its bytes depend on how
    fast the machine is.

    \b
    Examples:
      python -m runtimes.recover -m bundled --format gguf --bits 5.0 -o recovered/gguf-5.0
      python -m export.gguf -m recovered/gguf-5.0 --dtype auto
      python -m runtimes.recover -m ./my-model --format onnx --gate 4-bit -o recovered/onnx
      python -m runtimes.recover -m ./my-model --format any -o recovered/shared-4-bit
      python -m runtimes.recover -m bundled --format any -o recovered/d --distill --minutes 30
    """  # noqa: D301
    from runtimes.footprint import resident_mb
    from runtimes.located import located
    from runtimes.recover.progress import Progress
    from runtimes.recover.request import check_out, checked_wish
    from runtimes.recover.run import Request, recover

    wish = checked_wish(TARGETS[format_name], bits, max_mb, gate)
    distillation = checked_distillation(distill, minutes, device)
    check_out(out)
    begun = time.process_time()
    request = Request(
        located(model, revision),
        TARGETS[format_name],
        wish,
        calibration,
        tokens,
        threads,
        distillation,
    )
    result = recover(request, out, Progress(lambda line: click.echo(line, err=True)))
    if result.distilled is not None:
        click.echo(_training(result.distilled))
    counts = ", ".join(
        f"{list(result.grids.values()).count(grid)} × {grid}" for grid in TARGETS[format_name].grids
    )
    peak = resident_mb("VmHWM")
    memory = "" if peak is None else f", {peak:.0f} MB of memory at most"
    kl, found = result.figures["mean_kl"], result.figures
    click.echo(
        f"{out}  {result.bits:.3f} bits per weight, about {result.file_bytes / 1e6:.1f} MB of files"
        f" ({counts})\n"
        f"on held-out text of the model: mean KL {kl.value:.4f} [{kl.low:.4f}, {kl.high:.4f}],"
        f" top-1 {found['top1'].value:.1%}, clear {found['clear_top1'].value:.1%},"
        f" acceptance {found['acceptance'].value:.1%}"
        f"  ({time.process_time() - begun:.0f} CPU seconds{memory})"
    )


def _training(outcome: Outcome) -> str:
    done = (
        f"{outcome.minutes:g} minutes on {outcome.device}, {outcome.steps} steps,"
        f" {outcome.tokens} tokens"
    )
    if not outcome.improved:
        return f"distilled, {done}: nothing was better than the start, which is kept"
    return f"distilled, {done}: mean KL {outcome.start:.4f} → {outcome.best:.4f} on validation text"


if __name__ == "__main__":
    main()
