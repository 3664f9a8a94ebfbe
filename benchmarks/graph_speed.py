"""Speed of a decoder graph in ONNX Runtime on the CPU, whoever wrote it.

Invariant: every graph is run alike: a raw session with default optimisation, inputs and outputs
bound, and the cache handed on as ONNX Runtime allocated it, without a copy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

STEPS = 24
PAST, PRESENT = "past_key_values.", "present."
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class Pace:
    """Tokens per second of wall time, and per second of CPU time of all threads."""

    wall: float
    cpu: float


class Decoder:
    """One graph with its session. Peers' graphs do not all say how many KV heads of what size."""

    def __init__(self, graph: Path, threads: int, kv_heads: int, head_dim: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait for more work would be counted for whichever graph runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session: Any = ort.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        inputs = {item.name: item.type for item in self._session.get_inputs()}
        self._feeds = {name for name in inputs if not name.startswith(PAST)}
        self.empty = {
            name: _value(np.zeros((1, kv_heads, 0, head_dim), DTYPES[kind]))
            for name, kind in inputs.items()
            if name.startswith(PAST)
        }

    def measure(self, ids: Sequence[int]) -> tuple[Pace, Pace]:
        """Prefill `ids`, then decode STEPS tokens, one at a time: (decode, prefill)."""
        start = _now()
        past = self.extend(ids, 0, self.empty)
        middle = _now()
        for step in range(STEPS):
            past = self.extend(ids[step : step + 1], len(ids) + step, past)
        return _pace(STEPS, middle, _now()), _pace(len(ids), start, middle)

    def extend(self, ids: Sequence[int], length: int, past: dict[str, Any]) -> dict[str, Any]:
        """Append `ids` to a cache of `length` tokens; the new cache."""
        total = length + len(ids)
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(length, total, dtype=np.int64)[None],
            "num_logits_to_keep": np.array(1, np.int64),
        }
        binding = self._session.io_binding()
        for name in self._feeds:
            binding.bind_ortvalue_input(name, _value(feeds[name]))
        for name, value in past.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits")
        for name in past:
            binding.bind_output(PRESENT + name.removeprefix(PAST))
        self._session.run_with_iobinding(binding)
        return dict(zip(past, binding.get_outputs()[1:], strict=True))


def prompt(vocabulary: int, tokens: int) -> list[int]:
    """The same meaningless tokens for every graph."""
    ids: list[int] = np.random.default_rng(0).integers(100, vocabulary, tokens).tolist()
    return ids


def only_graph(folder: Path) -> Path:
    """The graph of a folder."""
    (path,) = folder.glob("*.onnx")
    return path


def _value(array: np.ndarray) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(array)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _pace(tokens: int, start: tuple[float, float], end: tuple[float, float]) -> Pace:
    return Pace(tokens / (end[0] - start[0]), tokens / (end[1] - start[1]))
