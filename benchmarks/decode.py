"""Decode and prefill speed of our graphs beside the peers', pair by pair in ONNX Runtime's CPU.

Invariant: the two graphs of a pair run in turns (A B A B …), so that whatever else the machine does
falls on both; and in several pairs of sessions, since where a session's memory happens to lie
changes its speed for as long as it lives. What decides is the ratio of tokens per CPU second on one
thread: wall time would measure the other users of a busy machine, and a second thread's CPU time is
in part waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.exporters import our_folder
from benchmarks.graph_speed import STEPS, Decoder, Pace, only_graph, prompt
from benchmarks.promises import Promises
from export.checkpoint import open_checkpoint

TURNS = 2
DECISIVE_THREADS = 1


@dataclass(frozen=True)
class Setting:
    """A prompt's length, the threads, and of how many pairs of sessions each result is."""

    tokens: int
    threads: int
    sessions: int


# Decoding reads all weights for each token, after a long prompt the whole KV cache too; SmolLM was
# trained with 2,048 tokens.
SETTINGS = (Setting(64, 1, 3), Setting(64, 2, 3), Setting(2048, 1, 2))
LONG = 1024


@dataclass(frozen=True)
class Pair:
    """Our graph, a peer's, and how many times the peer's decode speed is promised."""

    ours: str
    peer: str
    target: float | None = None


# The builder's fp16 graph is not here: ONNX Runtime's CPU cannot decode with it.
PAIRS = (
    Pair("fp32", "optimum-fp32", 1.3),
    Pair("fp32", "genai-fp32", 1.0),
    Pair("fp16", "optimum-fp32"),
    Pair("q8", "optimum-fp32"),
    Pair("q4", "optimum-fp32"),
    Pair("q4-symmetric-embedding-q4", "genai-int4"),
)
Measurements = list[tuple[Pace, Pace]]


def speed_tables(checkpoint: Path, folder: Path, promises: Promises) -> list[Table]:
    """Measure every pair of graphs that the exporters wrote into `folder`."""
    config = open_checkpoint(checkpoint).config
    tables = []
    for setting in SETTINGS:
        ids = prompt(config.vocab, setting.tokens)
        title = (
            f"{setting.tokens} tokens prefilled, then {STEPS} decoded; threads: {setting.threads}"
        )
        table = Table(title=title, title_justify="left")
        for name in ("ours", "peer", "phase", "tokens/s", "tokens/CPU-s", "ours / peer", ""):
            table.add_column(name, justify="right" if name.startswith("tokens") else "left")
        pairs = PAIRS if setting.tokens < LONG else [pair for pair in PAIRS if pair.target]
        for pair in pairs:
            folders = (our_folder(folder, pair.ours) / "onnx", folder / pair.peer)
            graphs = [only_graph(path) for path in folders]
            open_graph = partial(
                Decoder, threads=setting.threads, kv_heads=config.kv_heads, head_dim=config.head_dim
            )
            ours, peer = in_turns(open_graph, graphs, ids, setting.sessions)
            for phase, name in enumerate(("decode", "prefill")):
                ratios = [a[phase].cpu / b[phase].cpu for a, b in zip(ours, peer, strict=True)]
                decisive = setting.threads == DECISIVE_THREADS and name == "decode"
                table.add_row(
                    *(("", "") if phase else (pair.ours, pair.peer)),
                    name,
                    _both(ours, peer, phase, "wall"),
                    _both(ours, peer, phase, "cpu"),
                    f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
                    promises.at_least(
                        f"decode of {pair.ours} / {pair.peer} after {setting.tokens} tokens",
                        median(ratios),
                        pair.target if decisive else None,
                    ),
                )
        tables.append(table)
    return tables


def in_turns(
    open_graph: Callable[[Path], Decoder],
    graphs: Sequence[Path],
    ids: Sequence[int],
    pairs: int,
) -> list[Measurements]:
    """Measurements of each graph; each session has run once unmeasured before."""
    rounds = []
    for _ in range(pairs):
        sessions = [open_graph(path) for path in graphs]
        for session in sessions:
            session.measure(ids)
        rounds += [[session.measure(ids) for session in sessions] for _ in range(TURNS)]
    return [list(column) for column in zip(*rounds, strict=True)]


def _both(ours: Measurements, peer: Measurements, phase: int, clock: str) -> str:
    """The medians of ours and of the peer."""
    values = (median(getattr(item[phase], clock) for item in runs) for runs in (ours, peer))
    return " : ".join(f"{value:.0f}" for value in values)
