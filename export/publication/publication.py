"""What a format says of its publication: layout and model card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from export.publication.released import Released
from export.publication.repository import Repository


@dataclass(frozen=True, kw_only=True)
class Publication:
    """How a format's exports are published, in the layout that users of the hub expect."""

    layout: Callable[[Sequence[Released]], Iterable[Repository]]
    """The repositories of what is released of the format; see `repository`."""
    merged: tuple[str, ...]
    """Files that `layout` writes anew where several variants share a repository."""
    title: str
    """The format's name in cards."""
    library: str
    """The hub's `library_name`."""
    tags: tuple[str, ...]
    """The hub's tags."""
    file: re.Pattern[str]
    """The file that users name, among those of the recommended variant alone."""
    usage: Callable[[], str]
    """Gives how to use it: Markdown, as a Jinja template of `hub_id`, `file` (None where there is
    none) and `best`, the recommended `Released`."""
