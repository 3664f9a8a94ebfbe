"""One file of an artifact, and the files that exports copy from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.tokenizer import further_templates
from runtimes.contents.origin import Origin

# Files that say how a text becomes tokens and a chat a text, or how replies are made.
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
COPIED = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


class Topic(str, Enum):
    """What a key is about."""

    TOKENIZER = "tokenizer"
    TEMPLATE = "chat template"
    METADATA = "metadata"


@dataclass(frozen=True)
class Content:
    """A file, what it says and what it has to say: see `runtimes.contents.expectation`.

    `said` is its parsed document, None of a file that is none (its account is then `Exercised` or
    `Free`). `topics` say what keys that begin so are about; others are about the model. What other
    makers may say of keys that begin as in `binding` is no other value; of other keys they may.
    """

    file: str
    said: Any
    expected: Any
    topics: Mapping[str, Topic] = field(default_factory=dict)
    binding: tuple[str, ...] = ()

    def topic(self, key: str) -> Topic:
        """What a key is about."""
        found = (topic for begin, topic in self.topics.items() if key.startswith(begin))
        return next(found, Topic.METADATA)


TOPICS = {
    **{name: {"": Topic.TOKENIZER} for name in COPIED},
    SETTINGS: {"chat_template": Topic.TEMPLATE, "": Topic.TOKENIZER},
    "chat_template.jinja": {"": Topic.TEMPLATE},
    "generation_config.json": {},
}


def copied(folder: Path, origin: Origin, names: Iterable[str]) -> Iterator[Content]:
    """The checkpoint's own files, those of `names` that it has: the same documents, whole."""
    for name in names:
        if origin.has(name):
            said = document(folder / name) if (folder / name).exists() else None
            own = origin.tokenizer if name == TOKENIZER else document(origin.folder / name)
            yield Content(name, said, own, TOPICS.get(name, {"": Topic.TEMPLATE}))


def copied_of(origin: Origin) -> list[str]:
    """Files of a checkpoint that a folder for transformers has too, if the checkpoint has them."""
    further = further_templates(origin.folder)
    return [*COPIED, *(path.relative_to(origin.folder).as_posix() for path in further)]


def document(path: Path) -> Any:
    """A JSON object, or the text of another file.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    if path.suffix == ".json":
        return read_json(path)
    return path.read_text("utf-8")
