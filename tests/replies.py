"""What the reference answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtimes.parity.decoding import decode, greedy

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime


def greedy_reply(reference: TorchRuntime, prompt: Sequence[int], count: int) -> list[int]:
    """At most `count` most likely tokens, the first stop token included."""
    return [*decode(reference, greedy(prompt, count), reference.stop_tokens).reply]
