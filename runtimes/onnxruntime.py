"""ONNX artifacts in ONNX Runtime on the CPU; `open_graph` opens them on other devices too.

Invariant: shapes and dtypes come from the graph's own inputs; only the padding id, the context
length, and a head's size where the graph leaves it open, are read from the JSON files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tokenizers import Tokenizer

from edgeproof.artifact import Artifact
from edgeproof.checkpoints.special_tokens import listed
from edgeproof.errors import InputError
from runtimes.onnx_folder import GRAPH_FOLDER
from runtimes.said import said_of
from runtimes.sequence import SequenceRuntime, left_padded
from runtimes.special_ids import special_ids

PROVIDER = "CPUExecutionProvider"
TOKEN_INPUTS = {"input_ids", "attention_mask", "position_ids", "num_logits_to_keep"}
# Of Optimum's merged decoders: which of two graphs runs, the one that takes a cache or the other.
BRANCH = "use_cache_branch"
LONGEST_AT_ONCE = 4096  # tokens: what such a graph reads before it goes on one by one
PAST, PRESENT = "past_key_values.", "present."
# The context length, as the families' configs name it.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
CACHE_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# ONNX Runtime's exceptions share no base class; these are what a damaged model raises.
ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxSequence(SequenceRuntime):
    """A decoder graph with `past_key_values.N.*` inputs, for one sequence. Use `open_runtime`."""

    name = "onnxruntime"
    version: str = ort.__version__
    device = "CPU"

    def __init__(self, session: Any, path: Path, tokenizer: Tokenizer, settings: Settings) -> None:
        self._session: Any = session
        self._path = path
        self._tokenizer = tokenizer
        self._pad = settings.pad
        self.begin_token, self.stop_tokens = settings.begin, settings.stop_tokens
        self.special_tokens = special_ids(tokenizer)
        self.context = settings.context
        inputs = {item.name: item for item in self._session.get_inputs()}
        self._inputs = set(inputs)
        if BRANCH in self._inputs:
            self.chunk = min(self.context, LONGEST_AT_ONCE)
        self._empty = {
            name: _empty_cache(path, item, settings.head_size)
            for name, item in inputs.items()
            if name.startswith(PAST)
        }
        unknown = self._inputs - TOKEN_INPUTS - {BRANCH} - set(self._empty)
        if unknown or not self._empty:
            raise InputError(f"{path}: not a decoder with a KV cache; its inputs are {[*inputs]}")
        self._outputs = ["logits", *(PRESENT + name.removeprefix(PAST) for name in self._empty)]
        outputs = {item.name: item for item in self._session.get_outputs()}
        self._cache = self._empty
        # Of sequences that grow together: [B, tokens so far].
        self._mask = np.empty((0, 0), np.int64)
        self.vocabulary = self._vocabulary(outputs["logits"].shape[-1])

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def tokenize_whole(self, text: str) -> list[int]:
        """Token ids of `text` with what tokenizer.json puts around it."""
        return list(self._tokenizer.encode(text).ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def values(self, names: Sequence[str], ids: Sequence[int]) -> list[np.ndarray]:
        """Any of the graph's outputs for one new sequence, read in one pass."""
        (tokens,) = self._begin(ids)
        outputs = self._run(names, tokens[None], np.ones_like(tokens)[None], self._empty, keep=0)
        return [output.numpy() for output in outputs]

    def close(self) -> None:
        """Free the session and the cache."""
        self._session = None
        self._cache = self._empty = {}

    def _clear(self) -> None:
        self._cache = self._empty

    def _cut(self, length: int) -> bool:
        self._cache = {name: _shortened(past, length) for name, past in self._cache.items()}
        return True

    def _vocabulary(self, stated: object) -> int:
        """How many logits a token has; a graph that gives no number is run for it."""
        if isinstance(stated, int):
            return stated
        one = np.ones((1, 1), np.int64)
        return int(self._run(["logits"], one * 0, one, self._empty, keep=0)[0].shape()[-1])

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        if BRANCH not in self._inputs or not self.length or len(ids) == 1:
            return self._extend_at(ids, self.length, every)
        # The branch with a cache was traced with one token, whose mask is no triangle.
        places = range(len(ids))
        rows = [self._extend_at(ids[n : n + 1], self.length + n, every) for n in places]
        return np.concatenate(rows) if every else rows[-1]

    def _extend_at(self, ids: np.ndarray, length: int, every: bool) -> np.ndarray:
        """Append tokens to a cache of so many."""
        mask = np.ones((1, length + len(ids)), np.int64)
        logits, *present = self._run(
            self._outputs, ids[None], mask, self._cache, keep=0 if every else 1
        )
        self._cache = dict(zip(self._empty, present, strict=True))
        values: np.ndarray = logits.numpy()[0]  # [n or 1, V]
        return (values if every else values[-1:]).astype(np.float32, copy=False)

    def _run(
        self,
        outputs: Sequence[str],
        ids: np.ndarray,
        mask: np.ndarray,
        past: Mapping[str, Any],
        keep: int,
    ) -> list[Any]:
        """Run the graph: ids [B, n], mask [B, past + n]; the outputs as OrtValues, not copied.

        Raises:
            InputError: ONNX Runtime loads the graph, but cannot run it.
        """
        tokens = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :],
            "num_logits_to_keep": np.array(keep, np.int64),
            BRANCH: np.array([mask.shape[1] > ids.shape[1]]),
        }
        feeds = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in tokens.items()
            if name in self._inputs
        }
        try:
            return list(self._session.run_with_ort_values(outputs, {**feeds, **past}))
        except ORT_ERRORS as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self._path}: ONNX Runtime cannot run it: {reason}") from None


class OnnxRuntime(OnnxSequence):
    """One that takes left-padded batches, too."""

    def padded_logits(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Run several sequences as one left-padded batch: float32 [T_i, V] of each, unpadded."""
        ids, mask = left_padded(sequences, self._pad)
        past = self._empty_caches(len(sequences))
        batch = self._run(["logits"], ids, mask, past, keep=0)[0].numpy()  # [B, T, V]
        return [
            rows[len(rows) - len(tokens) :].astype(np.float32)
            for rows, tokens in zip(batch, sequences, strict=True)
        ]

    def start_many(self, prompts: Sequence[Sequence[int]], room: int) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`: one left-padded batch."""
        ids, mask = left_padded(prompts, self._pad)
        self._cache, self._mask, self.length = self._empty_caches(len(prompts)), mask, 0
        return self._extend_many(ids)

    def step_many(self, tokens: Sequence[int]) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`."""
        ids = np.asarray(tokens, np.int64)[:, None]  # [B, 1]
        self._mask = np.concatenate((self._mask, np.ones_like(ids)), axis=1)
        return self._extend_many(ids)

    def _extend_many(self, ids: np.ndarray) -> np.ndarray:
        """Append tokens [B, n] to the sequences of `_mask`: the last's logits [B, V]."""
        logits, *present = self._run(self._outputs, ids, self._mask, self._cache, keep=1)
        self._cache = dict(zip(self._empty, present, strict=True))
        values: np.ndarray = logits.numpy()[:, -1]
        return values.astype(np.float32)

    def _empty_caches(self, batch: int) -> dict[str, Any]:
        return {name: _empty_like(value, batch) for name, value in self._empty.items()}


@dataclass(frozen=True)
class Settings:
    """What the graph does not say: context length, and the ids that begin, pad and end texts.

    Nor, where GenAI's builder made it, a head's size: there caches of fewer bits fit in, too.
    """

    context: int
    begin: int | None
    pad: int
    stop_tokens: frozenset[int]
    head_size: int | None


def open_runtime(artifact: Artifact, threads: int, folder: str = GRAPH_FOLDER) -> OnnxSequence:
    """Open an ONNX artifact on the CPU.

    An artifact may have the same model as two graphs over the same weights: `folder` says which,
    "onnx" the one for transformers.js and "." the one for Optimum.

    Raises:
        InputError: ONNX Runtime cannot load the graph, or it is not a decoder with a KV cache.
    """
    batches = artifact.foreign is None or artifact.foreign.batches
    kind = OnnxRuntime if batches else OnnxSequence
    return kind(*open_graph(artifact, lambda path: _session(path, threads), folder))


def open_graph(
    artifact: Artifact, open_session: Callable[[Path], Any], folder: str = GRAPH_FOLDER
) -> tuple[Any, Path, Tokenizer, Settings]:
    """What `OnnxRuntime` is made of, with the session that `open_session` opens for the graph.

    Raises:
        InputError: not exactly one graph in the artifact's `folder`, or unreadable files.
    """
    names = (PurePosixPath(item.path) for item in artifact.manifest.outputs)
    # Of another maker's, the one that is looked at, wherever that maker puts it.
    anywhere = artifact.foreign is not None
    graphs = [n for n in names if n.suffix == ".onnx" and (anywhere or str(n.parent) == folder)]
    if len(graphs) != 1:
        raise InputError(f"{artifact.path / folder}: expected one file *.onnx, found {len(graphs)}")
    tokenizer = Tokenizer.from_file(str(artifact.file("tokenizer.json")))
    path = artifact.path / graphs[0]
    return open_session(path), path, tokenizer, _settings(artifact.path)


def _settings(folder: Path) -> Settings:
    said = said_of(folder)
    config, ends = said.config, listed(said.role_id("eos"))
    pad = next(iter(listed(said.role_id("pad"))), None)
    lengths = [config[key] for key in CONTEXT_KEYS if isinstance(config.get(key), int)]
    if not lengths:
        raise InputError(f"{folder / 'config.json'}: names no context length ({CONTEXT_KEYS[0]})")
    return Settings(
        context=lengths[0],
        begin=next(iter(listed(said.role_id("bos"))), None),
        pad=int([*ends, 0][0] if pad is None else pad),
        stop_tokens=frozenset(ends),
        head_size=_head_size(config),
    )


def _head_size(config: Mapping[str, Any]) -> int | None:
    size, width, heads = (
        config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads")
    )
    if isinstance(size, int):
        return size
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads else None


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = create_session(path, options, providers=[PROVIDER])
    if session.get_providers() != [PROVIDER]:
        raise InputError(f"{path}: opened on {session.get_providers()}, expected only {PROVIDER}")
    return session


def create_session(
    path: Path, options: ort.SessionOptions, model: bytes | None = None, **providers: Any
) -> Any:
    """A session that logs errors only, on the file or on the `model` that was read from it.

    Raises:
        InputError: ONNX Runtime cannot load the graph.
    """
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model or str(path), options, **providers)
    except ORT_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason}") from None


def _empty_cache(path: Path, item: Any, head_size: int | None) -> Any:
    """A cache input without tokens: [1, heads, 0, head_dim] in the graph's dtype."""
    shape = [*item.shape]
    if len(shape) == 4 and not isinstance(shape[3], int) and head_size is not None:
        shape[3] = head_size
    if item.type not in CACHE_DTYPES or len(shape) != 4 or not isinstance(shape[1] * shape[3], int):
        raise InputError(
            f"{path}: input {item.name} is {item.type} {shape}; the head count and head size"
            " must be fixed numbers, in float32 or float16"
        )
    return _zeros((1, shape[1], 0, shape[3]), CACHE_DTYPES[item.type])


def _empty_like(value: Any, batch: int) -> Any:
    return _zeros((batch, *value.shape()[1:]), value.numpy().dtype.type)


def _shortened(past: Any, length: int) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(past.numpy()[:, :, :length]))


def _zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype))
