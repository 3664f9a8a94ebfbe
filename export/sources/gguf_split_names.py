"""Which files are the splits of one GGUF model: `<stem>-00001-of-0000N.gguf`, in one folder."""

from __future__ import annotations

import re
from pathlib import Path

from edgeproof.errors import InputError

NAME = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf", re.ASCII)


def split_paths(path: Path) -> list[Path]:
    """All files of the model that a file name belongs to, in order; often only that one.

    Raises:
        InputError: one is missing.
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        return [path]
    paths = [
        path.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf")
        for number in range(1, int(match["count"]) + 1)
    ]
    for part in paths:
        if not part.is_file():
            raise InputError(f"{part}: this split is missing; all must lie in one folder")
    return paths or [path]


def model_stem(path: Path) -> str:
    """A file's name without its ending and its place among the splits."""
    match = NAME.fullmatch(path.name)
    return match["stem"] if match else path.stem
