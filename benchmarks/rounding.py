"""`python -m benchmarks.rounding [IMATRIX]`: what `--rounding search` gains, and what it costs.

Exports types of up to 5 bits of the bundled model with each method, and with the importance matrix
if one is given, and prints a Markdown table. Of the layers' matrices as the files hold them: the
relative error, plain and weighted by importance. Of all stored weights, run in PyTorch float32:
mean KL on the plain texts of the fast budget. Of the export: CPU seconds, peak memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeproof.artifact import open_artifact
from export.checkpoint import open_checkpoint
from export.rounding.imatrix import keep_imatrix, read_imatrix
from export.sources import resolve
from export.targets import Target
from runtimes.formats import dequantise
from runtimes.parity.divergence import compare, concatenate
from runtimes.parity.suite import Budget, built_in
from runtimes.pytorch import open_reference
from tests.measured import measured

ROOT = Path(__file__).parent.parent
SEARCH = ("--rounding", "search")
# (format, dtype, its options); llama.cpp rounds a GGUF type that has a matrix and not `search`.
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("gguf", "q4_0", ()),
    ("onnx", "q4", ()),
    ("mlc", "q4f16_1", ()),
    ("gguf", "q5_0", ()),
    ("gguf", "q4_1", ()),
    ("gguf", "q5_1", ()),
    ("onnx", "bnb4", ()),
    ("onnx", "q4", ("--symmetric",)),
    ("mlc", "q3f16_1", ()),
)
COLUMNS = ("type", "method", "error", "weighted error", "KL of the weights", "CPU s", "peak MB")


def main(arguments: Sequence[str]) -> None:
    """Print the table; `arguments` are an importance matrix, or nothing."""
    matrix = Path(arguments[0]).resolve() if arguments else None
    judge = Judge(resolve("bundled", None).path, matrix)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for form, dtype, options in CASES:
        for name, more in _methods(form, matrix).items():
            with tempfile.TemporaryDirectory() as folder:
                asked = ("-d", dtype, *options, *more, "-o", folder)
                cost = measured([sys.executable, "-m", f"export.{form}", *asked], ROOT)
                (manifest,) = Path(folder).rglob("edgeproof.json")
                stored = dequantise(open_artifact(manifest.parent))
                plain, weighted = judge.errors(stored)
                kl = judge.kl(stored)
            kind = "-".join((form, dtype, *(option.strip("-") for option in options)))
            figures = (f"{plain:.4f}", f"{weighted:.4f}" if matrix else "–", f"{kl:.3f}")
            costs = (f"{cost.cpu_seconds:.1f}", f"{cost.peak_mb:.0f}")
            print(f"| {' | '.join((kind, name, *figures, *costs))} |", flush=True)


def _methods(form: str, matrix: Path | None) -> dict[str, tuple[str, ...]]:
    methods: dict[str, tuple[str, ...]] = {"nearest": (), "search": SEARCH}
    if matrix is not None:
        option = ("--imatrix", str(matrix))
        methods |= {"search, imatrix": (*SEARCH, *option)}
        methods |= {"llama.cpp, imatrix": option} if form == "gguf" else {}
    return methods


class Judge:
    """Compares stored weights with the checkpoint's."""

    def __init__(self, folder: Path, matrix: Path | None) -> None:
        self._checkpoint = open_checkpoint(folder)
        self._imatrix = read_imatrix(keep_imatrix(matrix)) if matrix else None
        self._reference = open_reference(folder, 1)
        texts = [prompt.text for prompt in built_in(Budget.FAST).prompts if prompt.text]
        self._texts = [self._reference.tokenize(text) for text in texts]
        self._logits = list(self._run())

    def errors(self, stored: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Root of squared errors ÷ squared weights, over all layers' matrices: plain, weighted."""
        sums = np.zeros((2, 2))
        for parameter in self._checkpoint.parameters:
            if parameter.layer is None or len(parameter.shape) < 2:
                continue
            target = Target(parameter.name, (parameter,), parameter.shape)
            blocks = self._checkpoint.blocks(target)
            exact = np.concatenate([np.array(block, np.float32) for block in blocks])
            importance = self._imatrix.of(target) if self._imatrix else None
            relative = 1 if importance is None else importance / importance.mean()
            for column, values in enumerate((stored[parameter.name] - exact, exact)):
                squares = np.square(values).sum(axis=0, dtype=np.float64)
                sums[:, column] += squares.sum(), (squares * relative).sum()
        plain, weighted = np.sqrt(sums[:, 0] / sums[:, 1])
        return float(plain), float(weighted)

    def kl(self, stored: Mapping[str, np.ndarray]) -> float:
        """Mean KL(checkpoint ‖ stored) over all positions, in nats."""
        with self._reference.running(stored):
            pairs = zip(self._texts, self._logits, self._run(), strict=True)
            parts = [compare(exact, found, ids) for ids, exact, found in pairs]
        return float(concatenate(parts).kl.mean())

    def _run(self) -> Iterator[np.ndarray]:
        return (np.array(self._reference.logits(ids)) for ids in self._texts)


if __name__ == "__main__":
    main(sys.argv[1:])
