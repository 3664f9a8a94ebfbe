"""How GGUF exports are published: all files in one repository."""

from __future__ import annotations

import re
from pathlib import Path

from export.publication import Publication, repository

PUBLICATION = Publication(
    layout=lambda released: [repository(released, "GGUF", {})],
    merged=(),
    title="GGUF",
    library="gguf",
    tags=("gguf", "llama.cpp"),
    file=re.compile(r".*\.gguf"),
    usage=lambda: Path(__file__).with_name("usage.md.j2").read_text("utf-8"),
)
