"""GGUF artifacts in llama.cpp, through the low-level API of llama-cpp-python.

Invariant: nothing but the weights is approximate: float32 KV cache, no flash attention, every
position's logits as the graph computes them (for quantised weights, ggml itself rounds the
activations to 8 bits: that is the runtime's own error and is meant to be seen).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.llama_cpp_params import model_params
from runtimes.llamacpp_splits import splits_otherwise
from runtimes.sequence import EMPTY, SequenceRuntime

GGML_TYPE_F32 = 0
NO_BACKTRACE = "GGML_NO_BACKTRACE"  # ggml.c: where it aborts it would start gdb, for minutes
LOG_WARNING, LOG_ERROR = 3, 4  # ggml.h; llama-cpp-python does not export these
# A first context this long; it grows by doubling, because its KV cache is allocated in full.
FIRST_CONTEXT = 512
LOG_LINES = 3
LONGEST_NAME = 64  # bytes of a pre-tokenizer's name
SPACE_KEYS = ("model", "add_space_prefix")
# Kinds of vocabulary that may put a space before text, and whether they do without the second key.
SPACED = {"llama": "true", "t5": "false"}
# Attributes of tokens that llama.cpp finds in a text before all others.
PARTED = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


class LlamaCpp(SequenceRuntime):
    """A GGUF model, memory-mapped, with one context. Use `open_runtime`.

    `watch`, of llama.cpp's type `ggml_backend_sched_eval_callback`, is told of every operation.
    """

    name = "llama.cpp"
    version: str = llama_cpp.__version__
    device = "CPU"
    chunk = 128  # more need memory for their logits, and are no faster
    gpu_layers = 0

    def __init__(self, path: Path, threads: int, watch: Any = None) -> None:
        self._path = path
        self._threads = threads
        self._watch = watch
        self._model: Any = _load(path, self.gpu_layers)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.context = _longest(self._model)
        self._batch: Any = _batch(self.chunk)
        self._context: Any = self._new_context(min(FIRST_CONTEXT, self.context))
        self._lengths: list[int] = []  # of `step_many`'s sequences

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return self._ids(text, whole=False)

    def tokenize_whole(self, text: str) -> list[int]:
        """Token ids of `text` with the begin and end that the file asks for."""
        return self._ids(text, whole=True)

    def _ids(self, text: str, *, whole: bool) -> list[int]:
        data = text.encode()
        count, ids = self._tokenize(data, len(data) + 2, whole)
        if count < 0:  # it needs more room: a normaliser made the text longer
            count, ids = self._tokenize(data, -count, whole)
        return list(ids[:count])

    def splits_otherwise(self, text: str) -> bool:
        """Whether tokenizers that become such a file may read the text otherwise.

        Some byte-level ones by their expressions (`llamacpp_splits`). Some SentencePiece ones put a
        space only before a text, or before none that begins with one; llama.cpp after every special
        token.
        """
        by_pre = splits_otherwise(self._pre, text)
        return by_pre or (self._spaces and (text.startswith(" ") or self._has_special(text)))

    def _has_special(self, text: str) -> bool:
        attributes = (llama_cpp.llama_vocab_get_attr(self._vocab, i) for i in self.tokenize(text))
        return any(attribute & PARTED for attribute in attributes)

    @cached_property
    def _pre(self) -> str:
        return _metadata(self._model, "tokenizer.ggml.pre")

    @cached_property
    def _spaces(self) -> bool:
        """Whether a space is put before stretches of text: in some vocabularies by default."""
        kind, said = (_metadata(self._model, f"tokenizer.ggml.{key}") for key in SPACE_KEYS)
        return kind in SPACED and (said or SPACED[kind]) == "true"

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end a reply, as llama.cpp finds them in the file's metadata."""
        return _stop_tokens(self._vocab)

    @cached_property
    def begin_token(self) -> int | None:
        """The id that begins a text, as the file's metadata says, or llama.cpp's default."""
        begin = int(llama_cpp.llama_vocab_bos(self._vocab))
        return None if begin == llama_cpp.LLAMA_TOKEN_NULL else begin

    @cached_property
    def special_tokens(self) -> frozenset[int]:
        """The ids that are control tokens, which llama.cpp prints only where it is asked to."""
        return frozenset(
            i for i in range(self.vocabulary) if llama_cpp.llama_vocab_is_control(self._vocab, i)
        )

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        data = self._detokenize(ids, 16 * len(ids))
        if isinstance(data, int):
            data = self._detokenize(ids, data)
        assert isinstance(data, bytes)
        return data.decode(errors="replace")

    def close(self) -> None:
        """Free the batch, the context and the model; calling it again does nothing."""
        if self._model is None:
            return
        llama_cpp.llama_batch_free(self._batch)
        self._free_context()
        with captured_log():
            llama_cpp.llama_model_free(self._model)
        self._batch = self._model = None

    def _tokenize(self, data: bytes, room: int, whole: bool) -> tuple[int, Any]:
        ids = (llama_cpp.llama_token * room)()
        parse_special = True
        count = llama_cpp.llama_tokenize(
            self._vocab, data, len(data), ids, room, whole, parse_special
        )
        return int(count), ids

    def _detokenize(self, ids: Sequence[int], room: int) -> bytes | int:
        """The text's bytes, or how much room they need."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        buffer = ctypes.create_string_buffer(room)
        count = llama_cpp.llama_detokenize(self._vocab, tokens, len(ids), buffer, room, False, True)
        return buffer.raw[:count] if count >= 0 else -count

    def _begin(self, ids: Sequence[int], kept: int = 0) -> list[np.ndarray]:
        chunks = super()._begin(ids, kept)
        self._reserve(len(ids))  # at once: little or nothing needs to be taken over yet
        return chunks

    def start_many(self, prompts: Sequence[Sequence[int]], room: int) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`.

        Raises:
            InputError: llama.cpp has no memory for it.
        """
        if not all(len(ids) for ids in prompts):
            raise ValueError(EMPTY)
        self.length, self._lengths = 0, [0] * len(prompts)
        self._free_context()
        self._context = self._new_context(max(map(len, prompts)) + room, len(prompts))
        rows = []
        for sequence, prompt in enumerate(prompts):
            ids = self._checked(prompt)
            for first in range(0, len(ids), self.chunk):
                part = ids[first : first + self.chunk]
                end = first + len(part)
                last = self._decode(part, np.arange(first, end), np.full(len(part), sequence), None)
            self._lengths[sequence] = len(ids)
            rows.append(last[0].copy())
        return np.stack(rows)

    def step_many(self, tokens: Sequence[int]) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`."""
        every = np.ones(len(tokens), bool)
        sequences = np.arange(len(tokens))
        rows = self._decode(np.asarray(tokens), np.array(self._lengths), sequences, every)
        self._lengths = [length + 1 for length in self._lengths]
        return np.array(rows)

    def _clear(self) -> None:
        if self._lengths:
            self._lengths = []
            self._free_context()
            self._context = self._new_context(min(FIRST_CONTEXT, self.context))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _cut(self, length: int) -> bool:
        memory = llama_cpp.llama_get_memory(self._context)
        return bool(llama_cpp.llama_memory_seq_rm(memory, 0, length, -1))

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        count = len(ids)
        self._reserve(self.length + count)
        positions = np.arange(self.length, self.length + count)
        return self._decode(
            ids, positions, np.zeros(count, int), np.ones(count, bool) if every else None
        )

    def _decode(
        self,
        ids: np.ndarray,
        positions: np.ndarray,
        sequences: np.ndarray,
        wanted: np.ndarray | None,
    ) -> np.ndarray:
        """Logits [n, V] of the wanted ones of 1 to `chunk` tokens [n], by default of the last.

        They are llama.cpp's own memory, which its next call fills again.
        """
        count = len(ids)
        _view(self._batch.token, count)[:] = ids
        _view(self._batch.pos, count)[:] = positions
        for index, sequence in enumerate(sequences):
            self._batch.seq_id[index][0] = int(sequence)
        asked = _view(self._batch.logits, count)
        asked[:] = False if wanted is None else wanted
        asked[-1] = True
        self._batch.n_tokens = count
        with captured_log() as log:
            status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise InputError(f"{self._path}: llama_decode returned {status}: {_reason(log)}")
        buffer = llama_cpp.llama_get_logits(self._context)
        return _view(buffer, int(asked.sum()), self.vocabulary)

    def _reserve(self, tokens: int) -> None:
        """Make the context hold `tokens`; a new one takes over the sequence's KV cache."""
        size = int(llama_cpp.llama_n_ctx(self._context))
        if tokens <= size:
            return
        while size < tokens:
            size *= 2
        state = _sequence_state(self._context) if self.length else None
        self._free_context()
        self._context = self._new_context(min(size, self.context))
        if state is not None:
            _restore(self._context, state)

    def _free_context(self) -> None:
        if self._context is not None:
            with captured_log():
                llama_cpp.llama_free(self._context)
        self._context = None

    def _new_context(self, tokens: int, sequences: int = 1) -> Any:
        """One that holds so many tokens of each of so many sequences."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = tokens * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = self.chunk
        params.n_threads = params.n_threads_batch = self._threads
        params.type_k = params.type_v = GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # A build for a GPU would compute large batches there, wherever the layers are.
        params.op_offload = params.offload_kqv = self.gpu_layers > 0
        if self._watch is not None:
            params.cb_eval = self._watch
        with captured_log() as log:
            context = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise InputError(f"{self._path}: no context of {tokens} tokens: {_reason(log)}")
        return context


def open_runtime(artifact: Artifact, threads: int) -> LlamaCpp:
    """Open a GGUF artifact on the CPU; llama.cpp finds further splits by the first.

    Raises:
        InputError: llama.cpp refuses the file; the message has its own last words.
    """
    return LlamaCpp(artifact.files(".gguf")[0], threads)


@contextlib.contextmanager
def captured_log() -> Iterator[deque[str]]:
    """Collect llama.cpp's last warnings and errors instead of printing its whole log."""
    lines: deque[str] = deque(maxlen=LOG_LINES)

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        if level in (LOG_WARNING, LOG_ERROR):
            lines.append(text.decode(errors="replace").strip())

    previous, user_data = log_callback()
    llama_cpp.llama_log_set(collect, None)
    try:
        yield lines
    finally:
        llama_cpp.llama_log_set(previous, user_data)


def log_callback() -> tuple[Any, ctypes.c_void_p]:
    """The callback that llama.cpp logs to now, and its data, as `llama_log_set` takes them."""
    callback, user_data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(callback), ctypes.byref(user_data))
    return callback, user_data


def stop_tokens(path: Path) -> frozenset[int]:
    """The ids at which llama.cpp ends a reply; reads the file's vocabulary only.

    Raises:
        InputError: llama.cpp refuses the file.
    """
    model = _load(path, vocabulary_only=True)
    try:
        return _stop_tokens(llama_cpp.llama_model_get_vocab(model))
    finally:
        with captured_log():
            llama_cpp.llama_model_free(model)


def _stop_tokens(vocab: Any) -> frozenset[int]:
    count = int(llama_cpp.llama_vocab_n_tokens(vocab))
    return frozenset(i for i in range(count) if llama_cpp.llama_vocab_is_eog(vocab, i))


def _longest(model: Any) -> int:
    """Its context; with two tables of rotary divisors, that of the first.

    In a longer context llama.cpp takes the other one for all positions of every text.
    """
    longest = int(llama_cpp.llama_model_n_ctx_train(model))
    architecture = _metadata(model, "general.architecture")
    original = _metadata(model, f"{architecture}.rope.scaling.original_context_length")
    return min(longest, int(original)) if original.isdecimal() else longest


def _metadata(model: Any, key: str) -> str:
    """A text of the file's metadata; empty where there is none."""
    room = ctypes.create_string_buffer(LONGEST_NAME)
    llama_cpp.llama_model_meta_val_str(model, key.encode(), room, len(room))
    return room.value.decode(errors="replace")


def _load(path: Path, gpu_layers: int = 0, *, vocabulary_only: bool = False) -> Any:
    os.environ.setdefault(NO_BACKTRACE, "1")
    llama_cpp.llama_backend_init()
    params = model_params(llama_cpp)
    params.n_gpu_layers, params.vocab_only = gpu_layers, vocabulary_only
    with captured_log() as log:
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise InputError(f"{path}: llama.cpp cannot load it: {_reason(log)}")
    return model


def _batch(tokens: int) -> Any:
    """A batch of so many tokens, each of one sequence: 0, until another is written."""
    batch = llama_cpp.llama_batch_init(tokens, 0, 1)
    for index in range(tokens):
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
    return batch


def _sequence_state(context: Any) -> Any:
    size = llama_cpp.llama_state_seq_get_size(context, 0)
    state = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, state, size, 0)
    return state


def _restore(context: Any, state: Any) -> None:
    with captured_log() as log:
        count = llama_cpp.llama_state_seq_set_data(context, state, len(state), 0)
    if count != len(state):
        raise RuntimeError(f"llama.cpp did not take the KV cache over: {_reason(log)}")


def _view(pointer: Any, *shape: int) -> np.ndarray:
    return np.ctypeslib.as_array(pointer, shape=shape)


def _reason(log: deque[str]) -> str:
    return " · ".join(line for line in log if line) or "it does not say why"
