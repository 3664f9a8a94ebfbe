"""What a sequence shares with the one before it, which a runtime need not compute again."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.decoding import first_difference
from runtimes.protocol import RewindingRuntime, Runtime


class Beginning:
    """The tokens in a runtime's KV cache, and how many were asked for and computed in all.

    Invariant: `held` is what the cache holds, or a beginning of that.
    """

    def __init__(self, runtime: Runtime, *, reuse: bool = True) -> None:
        self._runtime = runtime if reuse and isinstance(runtime, RewindingRuntime) else None
        self.held: tuple[int, ...] = ()
        self.asked = self.computed = 0

    def shared(self, ids: Sequence[int], most: int) -> int:
        """How many tokens of a sequence, of its `most` first, the cache then holds and no others.

        The caller computes the others, and nothing else before it asks again.
        """
        kept = min(first_difference(self.held, ids), most)
        kept = self._runtime.rewind(kept) if self._runtime is not None and kept else 0
        self.asked += len(ids)
        self.computed += len(ids) - kept
        self.held = tuple(ids)
        return kept

    def grown(self, ids: Sequence[int]) -> None:
        """Tokens were appended one by one."""
        self.held += tuple(ids)
        self.asked += len(ids)
        self.computed += len(ids)

    def lost(self) -> None:
        """The cache has something else now."""
        self.held = ()
