"""How MLX exports are published: a repository per variant, which mlx_lm loads by its name."""

from __future__ import annotations

import re
from pathlib import Path

from export.publication import Publication, repository

PUBLICATION = Publication(
    layout=lambda released: [
        repository([item], f"{item.compared.variant}-MLX", {}) for item in released
    ],
    merged=(),
    title="MLX",
    library="mlx",
    tags=("mlx", "mlx-lm"),
    file=re.compile(r"model.*\.safetensors"),
    usage=lambda: Path(__file__).with_name("usage.md.j2").read_text("utf-8"),
)
