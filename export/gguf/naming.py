"""Split a model's name into the parts of GGUF's naming convention.

`<BaseName>-<SizeLabel>-<FineTune>-<Version>`, for example SmolLM2-135M-Instruct-v0.2; see
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMBT])", re.IGNORECASE)
VERSION = re.compile(r"v?\d+(\.\d+)*", re.IGNORECASE)
UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
# A "128K" in a name is a context length: a size label is as near to the parameters as this share.
SIZE_TOLERANCE = 7 / 8


@dataclass(frozen=True)
class NameParts:
    """What a name says; `size_label` is counted where the name does not say it."""

    title: str
    size_label: str
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None


def split_name(name: str, parameters: int) -> NameParts:
    """Parts of a model name such as SmolLM2-135M-Instruct, an organisation in front is dropped."""
    words = [word for word in name.rpartition("/")[2].split("-") if word]
    title = " ".join(_title(word) for word in " ".join(words).split())
    sizes = [i for i, word in enumerate(words) if i > 0 and _is_size(word, parameters)]
    if not sizes:
        return NameParts(title, size_label(parameters))
    base, rest = words[: sizes[0]], words[sizes[0] + 1 :]
    return NameParts(
        title=title,
        size_label=words[sizes[0]].upper(),
        basename="-".join(base),
        finetune="-".join(word for word in rest if not VERSION.fullmatch(word)) or None,
        version="-".join(word for word in rest if VERSION.fullmatch(word)) or None,
    )


def size_label(parameters: int) -> str:
    """At least two digits and a unit: 135M, 1.7B."""
    unit = next((unit for unit in "TBM" if parameters > UNITS[unit]), "K")
    count = parameters / UNITS[unit]
    return f"{count:.{1 if round(count) < 10 else 0}f}{unit}"


def file_name(name: str, type_name: str) -> str:
    """`<Name>-<TYPE>.gguf`, with characters that are awkward in file names replaced."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('.-')}-{type_name}.gguf"


def _is_size(word: str, parameters: int) -> bool:
    match = SIZE.fullmatch(word)
    if match is None:
        return False
    claimed = float(match[1]) * UNITS[match[2].upper()]
    return abs(claimed - parameters) <= parameters * SIZE_TOLERANCE


def _title(word: str) -> str:
    return word.title() if word.islower() and not VERSION.match(word) else word
