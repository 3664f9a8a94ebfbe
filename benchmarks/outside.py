"""`python -m benchmarks.outside RECOVERED ENV/bin/python`: auto-round on the same grid and text.

RECOVERED is the bundled model's recovery to the 4-bit grid that all formats store (`edgeproof
recover -m bundled --format any`); ENV has auto-round (`pip install auto-round`). All round the
linear layers alone: 4-bit blocks of 32, a signed scale, no zero point; the embedding stays the
original's, so that rounding is compared with rounding. Printed are the mean KL of the weights in
PyTorch float32 on the default text, with its 95 % interval, top-1, and CPU seconds. What auto-round
makes, bfloat16 products of codes and scales, is also exported as GGUF `q4_0`: exit 1 if a layer's
values there, in bfloat16, are others, which then were rounded twice.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

import click
import ml_dtypes  # noqa: F401 - bfloat16, for NumPy
import numpy as np
from safetensors.numpy import load_file

from edgeproof.artifact import MANIFEST, Artifact, open_artifact
from export.sources import resolve
from runtimes.formats import dequantise
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.reference import load_reference
from runtimes.parity.repeats import counted_once
from runtimes.parity.replay import replay_weights
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Budget, built_in
from runtimes.registry import open_reference
from tests.measured import measured

ROOT = Path(__file__).parent.parent
EMBEDDING = "model.embed_tokens.weight"
CALIBRATION = "calibration.json"
Weights = Mapping[str, np.ndarray]


@click.command()
@click.argument("recovered", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("python", type=click.Path(exists=True, dir_okay=False))
@click.option("--iterations", default=200, show_default=True, help="Of auto-round, per layer.")
@click.option("--threads", default=1, show_default=True)
def main(recovered: Path, python: str, iterations: int, threads: int) -> None:
    """Print a Markdown table of the layers rounded by each."""
    original = resolve("bundled").path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = ROOT / "benchmarks" / "rounded_outside.py"
        text = (recovered / CALIBRATION).resolve()
        command = [python, script, original, text, folder / "outside", iterations]
        try:
            cost = measured([*map(str, command)], ROOT)
        except subprocess.CalledProcessError as error:
            sys.exit(error.output.decode())
        nearest = _q4_0(original, folder / "nearest")
        judge = Judge(original, nearest, threads)
        outside = load_file(folder / "outside" / "model.safetensors")
        again = dequantise(_q4_0(folder / "outside", folder / "again"))
        twice = [name for name in outside if _is_layer(name) and _differs(again, outside, name)]
        rows = {
            "nearest (`q4_0`)": (dequantise(nearest), "–"),
            f"auto-round, {iterations} iterations": (outside, f"{cost.cpu_seconds:.0f}"),
            "recovered": (load_file(recovered / "model.safetensors"), "–"),
        }
        click.echo("| layers rounded by | mean KL | top-1 % | CPU s |\n|---|---|---|---|")
        for method, (weights, seconds) in rows.items():
            click.echo(f"| {method} | {' | '.join(judge.texts(weights))} | {seconds} |")
    if twice:
        sys.exit(f"{len(twice)} layers of auto-round were rounded again in GGUF, first {twice[0]}")


class Judge:
    """Compares weights with the original's, whose embedding they get."""

    def __init__(self, folder: Path, artifact: Artifact, threads: int) -> None:
        self._original = open_reference(folder, threads)
        self._threads = threads
        suite, inputs = built_in(Budget.DEFAULT), recorded_inputs(folder, [artifact])
        self._reference = load_reference(self._original, suite, inputs, lambda: None)
        self._embedding = {EMBEDDING: np.array(self._original.weights[EMBEDDING])}

    def texts(self, weights: Weights) -> tuple[str, str]:
        """Mean KL in nats with its interval; top-1 in percent."""
        given = ChainMap(self._embedding, dict(weights))
        found = replay_weights(self._original, given, self._reference, self._threads)
        estimates = summarise(counted_once(self._reference.documents, found))
        kl, top1 = estimates["mean_kl"], estimates["top1"]
        return f"{kl.value:.4f} [{kl.low:.4f}, {kl.high:.4f}]", f"{100 * top1.value:.1f}"


def _is_layer(name: str) -> bool:
    return name.endswith("_proj.weight")


def _differs(got: Weights, rounded: Weights, name: str) -> bool:
    return bool((got[name].astype(rounded[name].dtype) != rounded[name]).any())


def _q4_0(checkpoint: Path, out: Path) -> Artifact:
    """The GGUF file that is made of it."""
    command = [sys.executable, "-m", "export.gguf", "-m", checkpoint, "-d", "q4_0", "-o", out]
    measured([*map(str, command)], ROOT)
    (manifest,) = out.rglob(MANIFEST)
    return open_artifact(manifest.parent)


if __name__ == "__main__":
    main()
