"""How MLC exports are published: a repository per scheme, which WebLLM is pointed at."""

from __future__ import annotations

import re
from pathlib import Path

from export.publication import Publication, repository

PUBLICATION = Publication(
    layout=lambda released: [
        repository([item], f"{item.compared.variant}-MLC", {}) for item in released
    ],
    merged=(),
    title="MLC",
    library="mlc-llm",
    tags=("mlc-llm", "web-llm", "webgpu"),
    file=re.compile(r".*\.wasm"),
    usage=lambda: Path(__file__).with_name("usage.md.j2").read_text("utf-8"),
)
