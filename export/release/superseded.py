"""Plain and recovered exports under one file name: the better one is released.

A recovered checkpoint's ONNX files have the names that transformers.js looks for, as those of the
plain export have; a repository has one of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeproof.verdicts import Verdict
from export.publication import Released
from export.release.repositories import rewritten, together

BEST_FIRST = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.DEGRADED, Verdict.FAIL)


def superseded(released: Sequence[Released]) -> dict[str, str]:
    """Name of an export that gives way → name of the one that does not.

    Of a plain and a recovered export that write one file of a repository differently, it is the one
    of the worse verdict, of equal verdicts the one of larger mean KL. Others that do so are for
    `repository` to refuse: nothing tells which of them is meant.

    Raises:
        InputError: an unknown format.
    """
    found: dict[str, str] = {}
    for recovered in released:
        for plain in released:
            if recovered.compared.recovered is None or plain.compared.recovered is not None:
                continue
            if _clash(recovered, plain):
                best, other = sorted((recovered, plain), key=_rank)
                found[other.compared.name] = best.compared.name
    return found


def _rank(item: Released) -> tuple[int, float]:
    kl = item.compared.metrics.get("mean_kl")
    value = math.inf if kl is None or kl.value is None else kl.value
    return BEST_FIRST.index(item.compared.verdict), value


def _clash(first: Released, second: Released) -> bool:
    own, its = ({out.path: out.sha256 for out in item.compared.files} for item in (first, second))
    shared = (own.keys() & its.keys()) - set(rewritten(first.compared.format))
    return any(own[path] != its[path] for path in shared) and together(first, second)
