"""`python -m benchmarks.parity_cost [TYPE]`: what comparing costs beside the runtime's own prefill.

The bundled model as GGUF in llama.cpp, over 20,000 positions whose reference is captured already:
the runtime alone, then the comparison with PyTorch, the run of the file's weights alone and the
intervals included.
Seconds are wall time; peak memory is this process's, the capture left out if it was made
by an earlier run. Exit 1 when a promised figure is missed.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.promises import Promises
from edgeproof.artifact import Artifact
from export import job
from export.checkpoint import open_checkpoint
from export.formats import load_format
from export.sources import resolve
from runtimes.formats import dequantise
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.reference import Reference, load_reference
from runtimes.parity.replay import replay, replay_weights
from runtimes.parity.stages import Stages
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Budget, built_in
from runtimes.parity.weights_alone import WEIGHT_POSITIONS
from runtimes.protocol import Runtime
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference, open_runtime

POSITIONS, THREADS = 20_000, 2
TIMES_TARGET, PEAK_TARGET = 1.5, 1500.0


def main() -> None:
    """Measure one GGUF type, print the table."""
    dtype = sys.argv[1] if len(sys.argv) > 1 else "q8_0"
    checkpoint, promises = resolve("bundled").path, Promises()
    torch_runtime = open_reference(checkpoint, THREADS)
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        artifact = _export(dtype, Path(folder))
        inputs, suite = recorded_inputs(checkpoint, [artifact]), built_in(Budget.FULL)
        stages = Stages()
        with (
            stages.subject("reference"),
            stages.phase("text", len(suite.prompts)) as advance,
        ):
            reference = load_reference(torch_runtime, suite, inputs, advance).part(POSITIONS)
        torch_runtime.rest()
        alone = _prefill(artifact, reference)
        whole = _seconds(lambda: _compare(torch_runtime, artifact, reference))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    table = Table("", title=f"gguf {dtype}, {reference.positions} positions", title_justify="left")
    for name in ("seconds", "× prefill", "", "peak MB", ""):
        table.add_column(name, justify="right")
    times = whole / alone
    table.add_row("llama.cpp's prefill", f"{alone:.1f}", "1", "", "", "")
    table.add_row(
        "with the comparison",
        f"{whole:.1f}",
        f"{times:.2f}",
        promises.at_most("× prefill", times, TIMES_TARGET),
        f"{peak:.0f}",
        promises.at_most("peak MB", peak, PEAK_TARGET),
    )
    Console(width=100).print(table)
    sys.exit(1 if promises.missed else 0)


def _export(dtype: str, root: Path) -> Artifact:
    source, form = resolve("bundled"), load_format("gguf")
    checkpoint = open_checkpoint(source.path)
    identity = job.identify(source, checkpoint)
    variant = form.variant(dtype)
    wanted = job.Job(source, checkpoint, identity, form, variant)
    return job.run(wanted, root, lambda n: None).artifact


def _prefill(artifact: Artifact, reference: Reference) -> float:
    """Seconds that the open runtime takes for all positions."""
    with contextlib.closing(open_runtime(artifact, THREADS)) as runtime:
        return _seconds(lambda: [_read(runtime, document.ids) for document in reference.documents])


def _read(runtime: Runtime, ids: Sequence[int]) -> None:
    for _ in runtime.logit_blocks(ids):
        pass


def _compare(torch_runtime: TorchRuntime, artifact: Artifact, reference: Reference) -> None:
    part = reference.part(WEIGHT_POSITIONS)
    weights = replay_weights(torch_runtime, dequantise(artifact), part, THREADS)
    with contextlib.closing(open_runtime(artifact, THREADS)) as runtime:
        result = replay(reference, runtime.logit_blocks, THREADS, lambda: None)
    summarise(result.metrics)
    summarise(weights)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
