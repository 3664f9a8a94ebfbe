"""What a variant asks of Optimum."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproof import artifact
from edgeproof.artifact import Facts


@dataclass(frozen=True)
class Recipe(artifact.Recipe):
    """`dtype` is Optimum's name and transformers.js's, `stored` NumPy's of all tensors."""

    dtype: str
    stored: str
    engine: str = "optimum"

    @property
    def facts(self) -> Facts:
        """A traced graph computes in what it stores."""
        return Facts(self.stored, traced=True)
