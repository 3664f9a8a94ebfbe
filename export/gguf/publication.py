"""How GGUF exports are published: all files in one repository."""

from __future__ import annotations

import re
from importlib.resources import files

from export.publication import Publication, repository

PUBLICATION = Publication(
    layout=lambda released: [repository(released, "GGUF", {})],
    merged=(),
    title="GGUF",
    library="gguf",
    tags=("gguf", "llama.cpp"),
    file=re.compile(r".*\.gguf"),
    usage=files("export.gguf").joinpath("usage.md.j2").read_text("utf-8"),
)
