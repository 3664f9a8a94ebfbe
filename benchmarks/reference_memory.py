"""`python -m benchmarks.reference_memory`: what capturing the reference of large models takes.

Checkpoints of published shapes in bfloat16, all zeros, which take no room on the disk; the bundled
model's tokenizer, and the first documents of the built-in text, each chat with a reply of few
tokens. One layer's weights are in memory at a time, or all (`--whole`); both give the same bytes.
Peak memory is that of a process that does nothing else. Seconds are without a disk's: zeros are
not read. Exit 1 when a promised figure is missed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.promises import Promises
from benchmarks.shapes import SHAPES, copy_tokenizer, make_shape
from runtimes.computing import LAYERS, WHOLE, Computing
from runtimes.parity.reference import GROUP, load_reference
from runtimes.parity.suite import Budget, built_in
from runtimes.registry import open_reference
from tests.measured import measured

ROOT = Path(__file__).parent.parent
PEAK_MB = {"1.7B": 3800.0, "8B": 5700.0}
CONTEXT = 2048
# Llama 3 8B has a head of its own, SmolLM-1.7B has not.
UNTIED = {"8B"}


@click.command(help=__doc__)
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)))
@click.option("--documents", type=click.IntRange(1), default=GROUP, show_default=True)
@click.option("--reply-tokens", type=click.IntRange(1), default=4, show_default=True)
@click.option("--whole", is_flag=True, help="Have all weights in memory, for comparison.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--capture", type=click.Path(path_type=Path), hidden=True)
def main(
    shapes: tuple[str, ...],
    documents: int,
    reply_tokens: int,
    whole: bool,
    threads: int,
    capture: Path | None,
) -> None:
    """Measure and print the table."""
    if capture is not None:
        _capture(capture, documents, reply_tokens, threads, WHOLE if whole else LAYERS)
        return
    promises = Promises()
    table = Table("shape", title=f"The reference of {documents} documents", title_justify="left")
    for name in ("weights, M", "in memory", "CPU s", "peak MB", ""):
        table.add_column(name, justify="right")
    for shape in shapes or PEAK_MB:
        with tempfile.TemporaryDirectory(prefix="edgeproof-reference-") as temporary:
            folder = Path(temporary) / shape
            changes = {
                "max_position_embeddings": CONTEXT,
                "tie_word_embeddings": shape not in UNTIED,
            }
            weights = make_shape(folder, "llama", shape, sparse=True, **changes)
            copy_tokenizer(folder)
            numbers = ["--documents", documents, "--reply-tokens", reply_tokens]
            cost = measured(
                [
                    sys.executable, "-m", "benchmarks.reference_memory", "--capture", folder,
                    *map(str, (*numbers, "--threads", threads)), *(["--whole"] if whole else []),
                ],
                ROOT,
                {**os.environ, "EDGEPROOF_CACHE": str(Path(temporary) / "cache")},
            )  # fmt: skip
        promise = promises.at_most(
            f"{shape}: peak MB", cost.peak_mb, None if whole else PEAK_MB.get(shape)
        )
        held = "all" if whole else "one layer"
        row = (f"{weights / 1e6:.0f}", held, f"{cost.cpu_seconds:.0f}", f"{cost.peak_mb:.0f}")
        table.add_row(shape, *row, promise)
    Console(width=100).print(table)
    sys.exit(1 if promises.missed else 0)


def _capture(folder: Path, documents: int, reply_tokens: int, threads: int, weights: str) -> None:
    """In this process, whose cache goes with the folder."""
    suite = built_in(Budget.DEFAULT)
    suite = replace(suite, prompts=suite.prompts[:documents], reply_tokens=reply_tokens)
    runtime = open_reference(folder, threads, Computing(weights))
    reference = load_reference(runtime, suite, (), lambda: None)
    print(f"{reference.tokens} tokens, {len(reference.greedy_chats)} replies", file=sys.stderr)


if __name__ == "__main__":
    main()
