"""The KL of the original's logits and the trained model's, in nats, and its gradient.

Logits are computed piece by piece and never stored: a text is read a few times only, so that the
original's logits, or the largest of them, would cost a disk and save a tenth of the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import torch

from runtimes.calibrate.decoder import Decoder
from runtimes.recover.text import Chunk


def pull(
    student: Decoder, teacher: Decoder, chunks: Sequence[Chunk], weight: float, rows: int
) -> torch.Tensor:
    """Add `weight` × the gradient of the sum of KL to the student's gradients; that sum.

    Args:
        student: all its parameters have gradients, zeros if need be.
        teacher: the original.
        chunks: of equal length; positions from a chunk's prefix on count.
        weight: a factor.
        rows: positions whose logits are in memory at a time.
    """
    ids, counted = _tokens(student, chunks)
    with _body(student.device):
        wanted = target(teacher, ids, counted)
    with torch.enable_grad(), _body(student.device):
        hidden = student.hidden(student.embed(ids)).flatten(0, 1)[counted]
    head, total = student.head.detach(), torch.zeros((), device=student.device)
    slopes = []
    with torch.no_grad():
        own = hidden.detach()
        for ours, theirs in zip(torch.split(own, rows), torch.split(wanted, rows), strict=True):
            chances, divergence = _compared(ours @ head.T, theirs @ teacher.head.T)
            total += divergence.sum()
            chances *= weight
            slopes.append(chances @ head)
            assert student.output.grad is not None
            student.output.grad.addmm_(chances.T, ours, alpha=student.logits_factor)
    torch.autograd.backward(hidden, torch.cat(slopes))
    return total


@torch.no_grad()
def target(teacher: Decoder, ids: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """What enters the original's head at the positions that count: [n, hidden]."""
    return teacher.hidden(teacher.embed(ids)).flatten(0, 1)[counted]


class Validation:
    """The mean KL on a text that nothing is trained on; the original reads it once."""

    def __init__(self, teacher: Decoder, chunks: Sequence[Chunk], rows: int) -> None:
        self._teacher, self._rows = teacher, rows
        self._texts = [_tokens(teacher, [chunk]) for chunk in chunks]
        self._wanted = [target(teacher, *text) for text in self._texts]

    @torch.no_grad()
    def mean_kl(self, student: Decoder) -> float:
        """Nats a position, over all that count."""
        total, count = 0.0, 0
        for text, wanted in zip(self._texts, self._wanted, strict=True):
            own = target(student, *text)
            for ours, theirs in zip(
                torch.split(own, self._rows), torch.split(wanted, self._rows), strict=True
            ):
                _, divergence = _compared(ours @ student.head.T, theirs @ self._teacher.head.T)
                total += float(divergence.sum())
            count += len(own)
        return total / count


def _tokens(decoder: Decoder, chunks: Sequence[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [n, time] on the decoder's device, and the flat positions that count."""
    ids = torch.tensor([chunk.ids for chunk in chunks], device=decoder.device)
    prefixes = torch.tensor([[chunk.prefix] for chunk in chunks])
    counts = (torch.arange(ids.shape[1])[None] >= prefixes).flatten().nonzero().flatten()
    return ids, counts.to(decoder.device)


def _compared(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient by our logits [n, V] of each row's KL(theirs || ours), and that KL [n]."""
    own, wanted = ours.log_softmax(-1), theirs.log_softmax(-1)
    chances = wanted.exp()
    divergence = (chances * (wanted - own)).sum(-1)
    return own.exp_().sub_(chances), divergence


# PyTorch's words for float32 products of inputs rounded to 10 bits after the point, and to 7.
ROUNDED_TO_10, ROUNDED_TO_7 = "high", "medium"


@contextlib.contextmanager
def quick(device: str) -> Iterator[None]:
    """Meanwhile, what enters products is rounded where the device is much faster then.

    To 10 bits on CUDA; to bfloat16 on a CPU that multiplies tiles of it (Intel's AMX). Sums are
    float32. Other devices compute as ever.
    """
    before = torch.get_float32_matmul_precision()
    if device == "cuda":
        torch.set_float32_matmul_precision(ROUNDED_TO_10)
    elif device == "cpu" and has_tiles():
        torch.set_float32_matmul_precision(ROUNDED_TO_7)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _body(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Where products are rounded to bfloat16, layers pass it on too; logits stay float32."""
    if device.type == "cpu" and torch.get_float32_matmul_precision() == ROUNDED_TO_7:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


@cache
def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16; a PyTorch that cannot tell: no."""
    capabilities: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(capabilities().get("amx_bf16"))
