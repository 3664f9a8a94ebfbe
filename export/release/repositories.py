"""Lay out what is released: the repositories of each format, as the format says."""

from __future__ import annotations

from collections.abc import Sequence

from export.formats import load_format
from export.publication import Released, Repository


def repositories(released: Sequence[Released]) -> list[Repository]:
    """Lay out every repository, in the order of formats.

    Raises:
        InputError: two variants claim one file, or an unknown format.
    """
    result: list[Repository] = []
    for name in dict.fromkeys(item.compared.format for item in released):
        of_format = [item for item in released if item.compared.format == name]
        result += load_format(name).publication.layout(of_format)
    return result


def rewritten(form: str) -> tuple[str, ...]:
    """The files of a format that a repository may have in other bytes than a variant wrote.

    Raises:
        InputError: an unknown format.
    """
    return load_format(form).publication.merged


def together(first: Released, second: Released) -> bool:
    """Whether two exports would be in one repository.

    Raises:
        InputError: an unknown format.
    """
    own, its = ({item.name for item in repositories([each])} for each in (first, second))
    return first.compared.format == second.compared.format and bool(own & its)
