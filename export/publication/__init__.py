"""How a format's exports are published: what a format says of it, and what it says it with."""

from export.publication.publication import Publication
from export.publication.released import Released, recommended
from export.publication.repository import Content, Repository, repository, safe_name

__all__ = [
    "Content",
    "Publication",
    "Released",
    "Repository",
    "recommended",
    "repository",
    "safe_name",
]
