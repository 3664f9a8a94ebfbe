"""Say in a line what a manifest's `weights` section records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fallback_text(weights: Mapping[str, Any]) -> str | None:
    """How many tensors are not in the type that was asked for, and why; None if all are.

    For example: 181 of 272 tensors (80 % of weights) are Q5_0/Q8_0: rows of 576 do not divide into
    256.
    """
    fallbacks = weights["fallbacks"]
    if not fallbacks:
        return None
    count = sum(item["tensors"] for item in fallbacks)
    total = sum(item["tensors"] for item in weights["types"].values())
    reasons = sorted({(item["block"], item["row"]) for item in fallbacks})
    rows = {block: [str(row) for b, row in reasons if b == block] for block, _ in reasons}
    why = " and ".join(f"rows of {'/'.join(rows[b])} do not divide into {b}" for b in rows)
    stored = "/".join(sorted({item["stored"] for item in fallbacks}))
    verb = "is" if count == 1 else "are"
    percent = round(100 * weights["fallback_share"])
    return f"{count} of {total} tensors ({percent} % of weights) {verb} {stored}: {why}"


def classes_text(weights: Mapping[str, Any]) -> str | None:
    """The types of each kind of tensor, equal ones together; None if there is nothing to tell.

    For example: attn_q attn_k Q5_0 · ffn_down Q4_K+Q6_K. Norms and biases are left out.
    """
    kinds: dict[str, list[str]] = {}
    for kind, types in sorted(weights["classes"].items()):
        if not kind.endswith(("norm", "bias")):
            kinds.setdefault("+".join(sorted(types)), []).append(kind)
    if len(kinds) < 2:
        return None
    return " · ".join(f"{' '.join(names)} {types}" for types, names in kinds.items())
