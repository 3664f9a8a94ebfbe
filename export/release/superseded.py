"""Plain and recovered exports under one file name: the best one is released.

A recovered checkpoint's ONNX files have the names that transformers.js looks for, as those of the
plain export have; a repository has one of them. The best is that of the best verdict, then of the
smallest mean KL, then of the fewest bytes: no other is as good in all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeproof.verdicts import Verdict
from export.publication import Released
from export.release.repositories import rewritten, together

BEST_FIRST = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.DEGRADED, Verdict.FAIL)


def superseded(released: Sequence[Released]) -> dict[str, str]:
    """Name of an export that gives way → name of a better one that is released.

    From the best on, an export gives way to one that stays and writes a file of a repository
    differently, where one of them is recovered, or both are plain and a recovered one would write
    the files of either. Other plain exports that do so are for `repository` to refuse: nothing
    tells which of them is meant.

    Raises:
        InputError: an unknown format.
    """
    recovered = [item for item in released if item.compared.recovered is not None]
    found: dict[str, str] = {}
    staying: list[Released] = []
    for item in sorted(released, key=_rank) if recovered else ():
        better = next((other for other in staying if _decided(item, other, recovered)), None)
        if better is None:
            staying.append(item)
        else:
            found[item.compared.name] = better.compared.name
    return found


def _decided(first: Released, second: Released, recovered: Sequence[Released]) -> bool:
    """Whether two exports are not both released, and which is better decides."""
    if not _clash(first, second):
        return False
    return any(
        item is first or item is second or (_clash(item, first) and _clash(item, second))
        for item in recovered
    )


def _rank(item: Released) -> tuple[int, float, int, str]:
    kl = item.compared.metrics.get("mean_kl")
    value = math.inf if kl is None or kl.value is None else kl.value
    compared = item.compared
    return BEST_FIRST.index(compared.verdict), value, compared.bytes, compared.name


def _clash(first: Released, second: Released) -> bool:
    own, its = ({out.path: out.sha256 for out in item.compared.files} for item in (first, second))
    shared = (own.keys() & its.keys()) - set(rewritten(first.compared.format))
    return any(own[path] != its[path] for path in shared) and together(first, second)
