"""The order in which a text is read: all kinds early, so that its beginning stands for all of it.

A run may stop after a part of the text, and a part is always its first documents. Each kind of text
is spread evenly over the order, and each kind's own documents come from all over their file: the
last ones of a book are not left to the end.
"""

from __future__ import annotations

from collections.abc import Sequence


def reading_order(kinds: Sequence[str]) -> list[int]:
    """Indices of documents, of which the kinds are given, in the order to read them.

    Of the first n, for every n, each kind has about its share. The order follows from the kinds
    alone. A kind's only document, as the one long text, comes in the middle.
    """
    members: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        members.setdefault(kind, []).append(index)
    placed = [
        ((place + 0.5) / len(found), found[chosen])
        for found in members.values()
        for place, chosen in enumerate(_scattered(len(found)))
    ]
    return [index for _, index in sorted(placed)]


def _scattered(count: int) -> list[int]:
    """Indices, the first n of which lie about evenly among all, for every n.

    By their bits read backwards (van der Corput's sequence): the first, the one in the middle,
    those in the middle of each half, and so on.
    """
    bits = (count - 1).bit_length()
    return sorted(range(count), key=lambda index: f"{index:0{bits}b}"[::-1])
