"""What exporters cost: ours beside `optimum-cli`, the onnxruntime-genai builder and gguf-py.

Same checkpoint, same run; llama.cpp's converter is not installed with us, so its figures are
recorded, with how they were obtained.

Whole processes are measured, imports included: CPU seconds (user + system, all threads) and peak
resident memory as the kernel counts them. Each runs several times, the lowest CPU time is shown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.promises import Promises
from export.checkpoint import open_checkpoint
from export.onnx.traced.environment import optimum_bin
from tests.consumers.environment import genai_python
from tests.measured import Cost, measured

ROOT = Path(__file__).parent.parent
REPEATS, PEER_REPEATS = 3, 2


@dataclass(frozen=True)
class Case:
    """One exporter with its target, if the project promises one (CPU seconds, MB)."""

    module: str
    dtype: str
    cpu_target: float | None = None
    peak_target: float | None = None
    options: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """The name of what it writes: the options are part of it."""
        return "-".join((self.dtype, *(option.removeprefix("--") for option in self.options)))


# llama.cpp's converter on the bundled checkpoint: convert_hf_to_gguf.py --outtype TYPE of the
# sources in llama-cpp-python 0.3.36 (vendor/llama.cpp), with torch 2.13.0, transformers 5.23.0 and
# sentencepiece, one run each through tests.measured on a busy machine of 2 cores, Python 3.11.
RECORDED = {"f16": Cost(8.7, 553), "q8_0": Cost(8.4, 530)}
CASES = (
    Case("export.gguf", "f16", 1.2, 350),
    Case("export.gguf", "q8_0", 2.0, 350),
    Case("export.gguf", "q4_0", 2.0, 350),
    Case("export.onnx", "fp16", 1.5, 350),
    Case("export.onnx", "fp32"),
    Case("export.onnx", "q8"),
    Case("export.onnx", "q4"),
    # The onnxruntime-genai builder's int4: no zero points, head and embedding 4-bit too.
    Case("export.onnx", "q4", options=("--symmetric", "--embedding", "q4")),
    Case("export.mlc", "q0f16", 1.5, 350),
    Case("export.mlc", "q4f16_1", 4.0, 350),
)


@dataclass(frozen=True)
class Peer:
    """Another ONNX exporter's run, and how many times our CPU time it is promised to need."""

    tool: str
    dtype: str
    ours: str
    times_target: float | None

    def folder(self, root: Path) -> Path:
        """Where it writes, below the benchmark's folder."""
        return root / f"{self.tool}-{self.dtype}"

    def command(self, checkpoint: Path, root: Path) -> list[str | Path]:
        """The command line; makes the tool's environment if it is missing."""
        out = self.folder(root)
        if self.tool == "optimum":
            command: list[str | Path] = [optimum_bin() / "optimum-cli", "export", "onnx"]
            return [*command, "--model", checkpoint, "--task", "text-generation-with-past", out]
        command = [genai_python(), "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        return [*command, "-p", self.dtype, "-i", checkpoint, "-o", out, "-c", root / "genai-cache"]


PEERS = (
    Peer("optimum", "fp32", "fp32", 10),
    Peer("genai", "fp32", "fp32", 4),
    Peer("genai", "fp16", "fp16", 4),
    Peer("genai", "int4", "q4-symmetric-embedding-q4", None),
)
# Bytes per parameter, of all graphs and weight files together.
SIZE_TARGETS = {"ours fp16": 2 * 1.01}


def cost_tables(checkpoint: Path, folder: Path, promises: Promises) -> list[Table]:
    """Run every exporter into `folder`; what they cost and how large their files are."""
    table = _table(f"Export of {checkpoint.name}", "CPU s", "", "peak MB", "")
    costs: dict[tuple[str, str], Cost] = {}
    for case in CASES:
        name = " ".join(("python -m", case.module, "--dtype", case.dtype, *case.options))
        command: list[str | Path] = [sys.executable, *name.split()[1:], "--out", folder, "--force"]
        cost = best_of(command, REPEATS)
        costs[case.module, case.variant] = cost
        table.add_row(
            name,
            f"{cost.cpu_seconds:.2f}",
            promises.at_most(f"{name}: CPU s", cost.cpu_seconds, case.cpu_target),
            f"{cost.peak_mb:.0f}",
            promises.at_most(f"{name}: peak MB", cost.peak_mb, case.peak_target),
        )
    gguf, onnx = (
        {variant: cost for (module, variant), cost in costs.items() if module == wanted}
        for wanted in ("export.gguf", "export.onnx")
    )
    numpy = {
        dtype: best_of(
            [sys.executable, "-m", "benchmarks.gguf_numpy", checkpoint, dtype, folder / "peer"],
            REPEATS,
        )
        for dtype in gguf
    }
    peers = {peer: best_of(peer.command(checkpoint, folder), PEER_REPEATS) for peer in PEERS}
    return [
        table,
        _onnx_ratios(onnx, peers, promises),
        _gguf_ratios(gguf, numpy),
        _sizes(checkpoint, folder, list(onnx), promises),
    ]


def our_folder(root: Path, name: str) -> Path:
    """The ONNX artifact of that name which was exported below `root`."""
    (path,) = root.glob(f"*/onnx/{name}")
    return path


def best_of(command: Sequence[str | Path], repeats: int) -> Cost:
    """The run with the lowest CPU time of several, with the highest peak memory of all."""
    costs = [measured(command, ROOT) for _ in range(repeats)]
    return Cost(min(c.cpu_seconds for c in costs), max(c.peak_mb for c in costs))


def model_bytes(folder: Path) -> int:
    """Bytes of all graphs and weight files below a folder: what a copy stores twice, counts twice.

    Tokenizer and configuration files, the same in content whoever wrote them, do not count.
    """
    return sum(path.stat().st_size for path in folder.rglob("*.onnx*") if path.is_file())


def folder_bytes(folder: Path) -> int:
    """Bytes of every file below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _onnx_ratios(ours: Mapping[str, Cost], peers: Mapping[Peer, Cost], promises: Promises) -> Table:
    table = _table("ONNX: peers against ours", "CPU s", "× ours", "", "peak MB", "× ours")
    for peer, cost in peers.items():
        own, name = ours[peer.ours], f"{peer.tool} {peer.dtype}"
        times = cost.cpu_seconds / own.cpu_seconds
        table.add_row(
            f"{name} (ours: {peer.ours})",
            f"{cost.cpu_seconds:.2f}",
            f"{times:.1f}",
            promises.at_least(f"CPU s of {name} / ours", times, peer.times_target),
            f"{cost.peak_mb:.0f}",
            f"{cost.peak_mb / own.peak_mb:.1f}",
        )
    return table


def _gguf_ratios(ours: Mapping[str, Cost], live: Mapping[str, Cost]) -> Table:
    table = _table("GGUF: peers against ours", "CPU s", "× ours", "peak MB", "× ours")
    peers = {"gguf-py in NumPy, live": live, "llama.cpp's converter, recorded": RECORDED}
    for name, costs in peers.items():
        for dtype, peer in costs.items():
            own = ours[dtype]
            table.add_row(
                f"{dtype}: {name}",
                f"{peer.cpu_seconds:.2f}",
                f"{peer.cpu_seconds / own.cpu_seconds:.1f}",
                f"{peer.peak_mb:.0f}",
                f"{peer.peak_mb / own.peak_mb:.1f}",
            )
    return table


def _sizes(checkpoint: Path, root: Path, ours: Sequence[str], promises: Promises) -> Table:
    parameters = sum(math.prod(p.shape) for p in open_checkpoint(checkpoint).parameters)
    title = f"ONNX on disk; the model has {parameters:,} parameters"
    table = _table(title, "graphs and weights MB", "bytes/parameter", "", "folder MB")
    folders = {f"ours {name}": our_folder(root, name) for name in ours}
    folders |= {f"{peer.tool} {peer.dtype}": peer.folder(root) for peer in PEERS}
    for name, folder in folders.items():
        each = model_bytes(folder) / parameters
        table.add_row(
            name,
            f"{model_bytes(folder) / 1e6:.2f}",
            f"{each:.4f}",
            promises.at_most(f"{name}: bytes/parameter", each, SIZE_TARGETS.get(name)),
            f"{folder_bytes(folder) / 1e6:.2f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    return table
