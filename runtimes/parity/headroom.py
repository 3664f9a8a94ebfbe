"""float16 headroom: how near the reference's own values come to 65504, where, and what makes room.

A CPU computes in float32 and cannot show a GPU's overflow, so that it is asked of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from runtimes.parity.gates import HEADROOM, Gate
from runtimes.peaks import FP16_MAX, Peak, Place, stream_peak

# Scores are an upper bound, and runtimes may add them up in float32: they decide nothing.
DECIDES = (Place.STREAM, Place.OUTPUTS, Place.HEADS, Place.PRODUCT)


@dataclass(frozen=True)
class Room:
    """How many times the largest value at a place fits into float16, in one artifact."""

    peak: Peak
    times: float


def rooms(peaks: Iterable[Peak], residual_scale: float) -> tuple[Room, ...]:
    """Of an artifact whose residual stream is `residual_scale` times the reference's, least first.

    A place without any value has infinite room.
    """
    found = [
        Room(peak, FP16_MAX / (peak.value * scale) if peak.value else math.inf)
        for peak in peaks
        for scale in (residual_scale if peak.place is Place.STREAM else 1.0,)
    ]
    return tuple(sorted(found, key=lambda room: room.times))


def headroom(found: Sequence[Room]) -> float:
    """The least that counts."""
    return min((room.times for room in found if room.peak.place in DECIDES), default=math.inf)


def squared_headroom(peaks: Iterable[Peak]) -> float:
    """How many times the residual stream's largest square fits into float16."""
    peak = stream_peak(peaks)
    return FP16_MAX / peak**2 if peak else math.inf


def placed(gates: Sequence[Gate], found: Sequence[Room], residual_scale: float) -> tuple[Gate, ...]:
    """The gates, that on headroom with the place it is about and, where it is missed, a remedy."""
    return tuple(
        replace(gate, reason=f"{gate.reason}; {_places(gate.limit, found, residual_scale)}")
        if gate.metric == HEADROOM.metric
        else gate
        for gate in gates
    )


def score_notes(gates: Sequence[Gate], found: Sequence[Room]) -> list[str]:
    """What to say of attention scores where headroom is asked and they may have too little."""
    limits = [gate.limit for gate in gates if gate.metric == HEADROOM.metric]
    return [
        f"{room.peak.where} may reach {room.peak.value:.3g}, which leaves {room.times:.2g}× to"
        " float16's 65504: a runtime that keeps them in float16 may overflow"
        for room in found
        for limit in limits
        if room.peak.place is Place.SCORES and room.times < limit
    ]


def room_text(peaks: Iterable[Peak]) -> str:
    """What float16 leaves each place, and whether norms may square the stream, in words."""
    found = rooms(peaks, 1.0)
    texts = [f"{room.times:.3g}× for {room.peak.where}" for room in found]
    if squared_headroom(room.peak for room in found) < 1:
        texts.append("none for the stream's squares: norms must add them up in float32")
    return "; ".join(texts)


def _places(limit: float, found: Sequence[Room], residual_scale: float) -> str:
    asked = [room for room in found if room.peak.place in DECIDES]
    missed = [room for room in asked if room.times < limit]
    return ". ".join(
        f"{room.peak.where} reaches {room.peak.value:.4g}" + _remedy(room, limit, residual_scale)
        for room in missed or asked[:1]
    )


def _remedy(room: Room, limit: float, residual_scale: float) -> str:
    if not 0 < room.times < limit:
        return ""
    exponent = math.ceil(math.log2(limit / room.times))
    return f": {REMEDIES[room.peak.place](exponent, residual_scale)}, which is exact"


def _smaller_stream(exponent: int, residual_scale: float) -> str:
    scale = residual_scale * 2.0**-exponent
    return (
        f"`python -m export.onnx --residual-scale {scale:g}` makes room; elsewhere multiply the"
        f" embedding, o_proj and down_proj (or the norms after them) with {2.0**-exponent:g}, ε of"
        " the stream's norms with its square, and where embedding and head are tied divide the last"
        " norm by it"
    )


def _smaller_product(exponent: int, _: float) -> str:
    return f"multiply up_proj with 2^-{exponent} and down_proj with 2^{exponent} in the checkpoint"


def _smaller_outputs(exponent: int, _: float) -> str:
    return (
        f"multiply o_proj and down_proj with 2^-{exponent} and the ε of the norms after them with"
        f" 2^-{2 * exponent} in the checkpoint"
    )


def _smaller_heads(exponent: int, _: float) -> str:
    return (
        f"multiply q_proj and k_proj with 2^-{exponent} and the ε of their norms with"
        f" 2^-{2 * exponent} in the checkpoint"
    )


REMEDIES: dict[Place, Callable[[int, float], str]] = {
    Place.STREAM: _smaller_stream,
    Place.OUTPUTS: _smaller_outputs,
    Place.PRODUCT: _smaller_product,
    Place.HEADS: _smaller_heads,
}
