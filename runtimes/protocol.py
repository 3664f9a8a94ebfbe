"""What every runtime adapter offers, and nothing more.

An adapter module `runtimes/<name>.py` has one public function `open_runtime(artifact, threads)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


class Runtime(Protocol):
    """A model opened in one runtime.

    Logits are float32 and raw (before softmax); V is the vocabulary size, T the number of tokens.
    A runtime holds one sequence: `logits` and `start` both begin a new one.
    """

    name: str
    version: str
    device: str
    context: int
    """The greatest sequence length the model was made for."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits at every position of one sequence: float32 [T, V]."""

    def logit_blocks(self, ids: Sequence[int], first: int = 0) -> Iterator[np.ndarray]:
        """The same rows in order, some at a time, so that memory does not grow with the text.

        Those from position `first` on: the others are not computed where that can be spared.
        Each is valid until the next is asked for.
        """

    def start(self, ids: Sequence[int]) -> np.ndarray:
        """Clear the KV cache, prefill it with a non-empty prompt: logits after it, float32 [V]."""

    def step(self, token: int) -> np.ndarray:
        """Append one token through the runtime's own KV cache: logits after it, float32 [V]."""

    def close(self) -> None:
        """Free the model. The runtime cannot be used afterwards."""


@dataclass(frozen=True)
class AddedToken:
    """A token beside a tokenizer's words; `greedy` ones take spaces or whole words with them."""

    text: str
    greedy: bool


@runtime_checkable
class WrappingRuntime(Runtime, Protocol):
    """A runtime that puts tokens around a text by itself, where its files ask for it."""

    def tokenize_whole(self, text: str) -> list[int]:
        """Token ids of `text`, with what begins and ends it."""


@runtime_checkable
class TextRuntime(Runtime, Protocol):
    """A runtime that also writes text: what a chat needs."""

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end a reply, as the artifact's own files say."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included; half a character becomes U+FFFD."""


@runtime_checkable
class MarkedTextRuntime(TextRuntime, Protocol):
    """One that tells what of its tokens is no text: what programs around a model need."""

    @property
    def begin_token(self) -> int | None:
        """The id that begins a text, as the artifact's own files say; None: they name none."""

    @property
    def special_tokens(self) -> frozenset[int]:
        """The ids that programs leave out of the text that they show."""


@runtime_checkable
class RewindingRuntime(Runtime, Protocol):
    """A runtime that can go on from a beginning that two sequences share."""

    def rewind(self, length: int) -> int:
        """Forget what the sequence has after its first `length` tokens: how many are left.

        None are where the KV cache cannot be cut there: the next sequence is a new one.
        """

    def logit_blocks(
        self, ids: Sequence[int], first: int = 0, kept: int = 0
    ) -> Iterator[np.ndarray]:
        """As `Runtime`'s; the `kept` first tokens are in the KV cache and not computed again."""

    def start(self, ids: Sequence[int], kept: int = 0) -> np.ndarray:
        """As `Runtime`'s, with `kept` tokens in the KV cache already."""


@runtime_checkable
class BatchRuntime(Runtime, Protocol):
    """A runtime that also takes several sequences in one call."""

    def padded_logits(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Run non-empty sequences as one left-padded batch: float32 [T_i, V] of each."""


@runtime_checkable
class ManyRuntime(Runtime, Protocol):
    """A runtime whose KV cache holds several sequences, B of them, that grow together."""

    def start_many(self, prompts: Sequence[Sequence[int]], room: int) -> np.ndarray:
        """Clear the KV cache and prefill non-empty prompts: logits after each, float32 [B, V].

        `room` is how many tokens each may be continued with. `step` needs a new `start`.
        """

    def step_many(self, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each sequence, in their order: logits after it, float32 [B, V]."""


@runtime_checkable
class OwnTokenizerRuntime(Runtime, Protocol):
    """A runtime whose library is known to split some texts otherwise, whatever the file says."""

    def splits_otherwise(self, text: str) -> bool:
        """Whether the library's own fault may change the ids of this text."""


@runtime_checkable
class WiderRuntime(Runtime, Protocol):
    """A runtime of a file with more tokens than the original, whose logits leave these out."""

    @property
    def beyond(self) -> str | None:
        """In words, where one of those was the likeliest of all; None where none was."""
