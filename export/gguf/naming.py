"""Read a model's name as GGUF's naming convention does, and name files by it.

`<BaseName>-<SizeLabel>-<FineTune>-<Version>`, for example SmolLM2-135M-Instruct-v0.2; see
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention. Names in the wild
mix the order: which word is what is decided as in llama.cpp's converter (gguf-py's
Metadata.get_model_id_components), so that its metadata and ours agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
# A "128K" in a name is a context length: a size label is as near to the parameters as this share.
SIZE_TOLERANCE = 7 / 8
MAX_STEM = 128  # a card may say anything; file systems take 255 bytes
# Words that keep their spelling in a title.
NUMBERED = re.compile(r"v\d+(?:\.\d+)*|\d.*")


class WordKind(Enum):
    """What a word of a name says."""

    VERSION = auto()
    TYPE = auto()
    SIZE = auto()
    FINETUNE = auto()
    BASE = auto()


# The first that matches a whole word; those marked False cannot be the first word of a name.
PATTERNS = (
    (WordKind.VERSION, True, r"(v|iter)?\d+([.]\d+)*"),
    (WordKind.TYPE, True, r"i?q\d(_\w)*|b?fp?(16|32)"),
    (WordKind.SIZE, False, r"(A|\d+x)?\d+([._]\d+)?[KMBT]\d?|small|mini|medium|large|x?xl"),
    (WordKind.FINETUNE, False, r"chat|instruct|vision|lora"),
)


@dataclass(frozen=True)
class NameParts:
    """What a name says; None where it does not say it."""

    title: str
    organization: str | None = None
    size_label: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None


def split_name(model_id: str, parameters: int) -> NameParts:
    """Parts of `[organization/]name`; `parameters` tells a size from a context length."""
    if " " in model_id:  # prose, not a name of the convention
        return NameParts(title(model_id))
    organization, slash, name = model_id.partition("/")
    if not slash:
        organization, name = "", model_id
    if organization.startswith("."):  # a path such as ./name
        organization = ""
    words = [_classify(i, w, parameters) for i, w in enumerate(filter(None, name.split("-")))]
    words = _mark_basename(_drop_worded_sizes(words))
    found = {kind: [word for word, its in words if its is kind] for kind in WordKind}
    telling = found[WordKind.SIZE] or found[WordKind.FINETUNE] or found[WordKind.VERSION]
    return NameParts(
        title=title(name),
        organization=title(organization) or None,
        size_label="-".join(dict.fromkeys(found[WordKind.SIZE])) or None,
        basename="-".join(found[WordKind.BASE]) or None if telling else None,
        finetune="-".join(found[WordKind.FINETUNE]) or None,
        version="-".join(found[WordKind.VERSION]) or None,
    )


def title(name: str) -> str:
    """Words apart and capitalised, but for those with capitals or a number of their own."""
    words = name.replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not NUMBERED.fullmatch(w) else w for w in words)


def size_label(parameters: int) -> str:
    """At least two digits and a unit: 135M, 1.7B."""
    unit = next((unit for unit in "TBM" if parameters > UNITS[unit]), "K")
    count = parameters / UNITS[unit]
    return f"{count:.{1 if round(count) < 10 else 0}f}{unit}"


def file_stem(general: Mapping[str, str], type_name: str) -> str:
    """A file's name without `.gguf`, by the convention, from its `general.*` texts.

    Characters that are awkward in file names are replaced.
    """
    base = general.get("basename") or general["name"]
    rest = (general.get(key) for key in ("size_label", "finetune", "version"))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, (base, *rest))))
    return f"{name[:MAX_STEM].strip('.-') or 'model'}-{type_name}"


Word = tuple[str, WordKind | None]


def _classify(index: int, word: str, parameters: int) -> Word:
    kinds = (
        kind
        for kind, may_be_first, pattern in PATTERNS
        if (index > 0 or may_be_first) and re.fullmatch(pattern, word, re.IGNORECASE)
    )
    kind = next(kinds, None)
    if kind is WordKind.SIZE:
        return _size(word, parameters)
    return (word.upper() if kind is WordKind.TYPE else word), kind


def _size(word: str, parameters: int) -> Word:
    """A size label in its normal spelling, or a context length, which is part of the finetune."""
    word = word.replace("_", ".")
    if word[-1].isdecimal():  # bloom-7b1
        word = f"{word[:-2]}.{word[-1]}{word[-2]}"
    if word[-2].isdecimal():
        word = word[:-1] + word[-1].upper()
    try:
        claimed = float(word[:-1]) * UNITS[word[-1]]
    except (KeyError, ValueError):  # "small", or a mixture such as 8x7B
        return word, WordKind.SIZE
    if abs(claimed - parameters) > parameters * SIZE_TOLERANCE:
        return word[:-1] + word[-1].lower(), WordKind.FINETUNE
    return word, WordKind.SIZE


def _drop_worded_sizes(words: Sequence[Word]) -> list[Word]:
    """Beside a size in digits, "small" and "large" are ordinary words."""
    sizes = [word for word, kind in words if kind is WordKind.SIZE]
    if all(word.isalpha() for word in sizes):
        return list(words)
    return [(w, None if kind is WordKind.SIZE and w.isalpha() else kind) for w, kind in words]


def _mark_basename(words: Sequence[Word]) -> list[Word]:
    """The leading plain words, with the versions among them, are the base; later ones a finetune.

    Versions at the very end are the model's version even where only the base stands before them.
    """
    end = len(words)
    for index, (word, kind) in enumerate(words):
        if kind is not WordKind.VERSION and (kind is not None or not word[0].isalpha()):
            end = index
            break
    if end == len(words):
        while end and words[end - 1][1] is WordKind.VERSION:
            end -= 1
    base = [(word, WordKind.BASE) for word, _ in words[:end]]
    return [*base, *((word, kind or WordKind.FINETUNE) for word, kind in words[end:])]
