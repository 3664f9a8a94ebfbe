"""Scores with their intervals, and what two models' answers to the same questions say.

Shares: Clopper and Pearson's exact interval. The difference of two shares of the same questions:
Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based
on paired data" (Journal of Educational and Behavioral Statistics 37, 2012). Whether it is chance:
McNemar, "Note on the sampling error of the difference between correlated proportions or
percentages" (Psychometrika 12, 1947), exact, by the binomial distribution of the questions that
only one of the two has right. Other means over questions: Student's t. What is no mean over
questions, as a perplexity, has no interval.
"""

from __future__ import annotations

import math

import numpy as np

from edgeproof.verdicts import Beside, Score
from runtimes.parity.intervals import LEVEL, clopper_pearson, students_t
from runtimes.tasks.answers import Outcomes


def score_of(found: Outcomes) -> Score:
    """A metric's value with its interval."""
    if found.values is None or len(found.values) < 2:
        return Score(found.value, None, None)
    if found.share:
        return Score(found.value, *clopper_pearson(float(found.values.mean()), len(found.values)))
    return _mean(found.values)


def beside(found: Outcomes, reference: Outcomes, runtime: str) -> Beside:
    """What the reference, run on the same questions, makes of a score.

    Raises:
        ValueError: they were not the same questions.
    """
    if found.questions != reference.questions:
        raise ValueError("a paired comparison needs the same questions on both sides")
    changed = None
    if found.answers is not None and reference.answers is not None:
        changed = sum(a != b for a, b in zip(found.answers, reference.answers, strict=True))
    score = score_of(reference)
    if found.values is None or reference.values is None:
        difference = Score(found.value - reference.value, None, None)
        return Beside(runtime, score, difference, None, None, None, changed)
    if not (found.share and reference.share):
        differences = found.values - reference.values
        return Beside(runtime, score, _mean(differences), None, None, None, changed)
    lost = int(((found.values == 0) & (reference.values == 1)).sum())
    gained = int(((found.values == 1) & (reference.values == 0)).sum())
    difference = paired_difference(lost, gained, len(found.values))
    return Beside(runtime, score, difference, lost, gained, mcnemar(lost, gained), changed)


def paired_difference(lost: int, gained: int, count: int, level: float = LEVEL) -> Score:
    """The second share minus the first of `count` questions, with Bonett and Price's interval."""
    from scipy.stats import norm

    only_first, only_second = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    middle = only_second - only_first
    variance = (only_first + only_second - middle**2) / (count + 2)
    reach = float(norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    return Score((gained - lost) / count, max(-1.0, middle - reach), min(1.0, middle + reach))


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p: of 1 where no question tells the two apart."""
    from scipy.stats import binomtest

    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5).pvalue)


def _mean(values: np.ndarray) -> Score:
    value = float(values.mean())
    if len(values) < 2 or not np.isfinite(values).all():
        return Score(value, None, None)
    reach = students_t(len(values)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Score(value, value - reach, value + reach)
