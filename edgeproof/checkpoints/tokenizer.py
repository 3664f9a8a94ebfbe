"""tokenizer.json as transformers uses it: opened, and without what training left in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.added_tokens import loaded
from edgeproof.errors import InputError

TOKENIZER = "tokenizer.json"
# What a runtime may need beside the weights; everything else in the folder is ignored.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
# Templates beside the usual one, as transformers saves those of tool use; a name is a pattern.
FURTHER_TEMPLATES = "additional_chat_templates/*.jinja"
# transformers encodes without them unless it is asked; other runtimes obey the file.
LEFTOVERS = ("padding", "truncation")
ADDED = "added_tokens"
# What a processor of images writes over: Gemma 3's text models have such a token, and no row for
# it, so that none of their texts can have it. llama.cpp's converter leaves it out too
# (https://github.com/ggml-org/llama.cpp/issues/12876).
PLACEHOLDERS = frozenset({"<image_soft_token>"})


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Those of these files that a folder has, by their names (POSIX), templates last."""
    paths = {name: folder / name for name in TOKENIZER_FILES}
    further = {path.relative_to(folder).as_posix(): path for path in further_templates(folder)}
    return {name: path for name, path in paths.items() if path.exists()} | further


def further_templates(folder: Path) -> list[Path]:
    """Files of chat templates beside the usual one, in the order of their names."""
    return sorted(path for path in folder.glob(FURTHER_TEMPLATES) if path.is_file())


def settled_tokenizer(
    document: Mapping[str, Any], settings: Mapping[str, Any], source: Path
) -> dict[str, Any]:
    """A parsed tokenizer.json that neither pads nor cuts texts, with the tokens that are loaded.

    `settings` are `edgeproof.checkpoints.settings.tokenizer_settings`, `source` is the file.

    Raises:
        InputError: as for `edgeproof.checkpoints.added_tokens.loaded`.
    """
    plain = {key: None if key in LEFTOVERS else value for key, value in document.items()}
    tokens = loaded(document, settings, source)
    return plain if tokens == document.get(ADDED, []) else {**plain, ADDED: tokens}


def no_text(text: str, index: int, rows: int) -> bool:
    """Whether an added token stands for no text of a model with so many rows of the embedding."""
    return index >= rows and text in PLACEHOLDERS


def token_ids(document: Mapping[str, Any]) -> dict[str, int]:
    """The ids of the model's own tokens, text → id; a Unigram lists [text, score] by id."""
    vocab = document["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, Mapping) else {row[0]: i for i, row in enumerate(vocab)}


def around(document: Mapping[str, Any], source: Path) -> tuple[list[int], list[int]]:
    """The ids that a parsed tokenizer.json, the file `source`, puts before and after a single text.

    It is the post-processor's word alone: transformers drops `add_bos_token` and `add_eos_token`
    of tokenizer_config.json where there is a tokenizer.json (`tokenization_utils_base.py`,
    `_from_pretrained`).

    Raises:
        InputError: a post-processor that cannot be read.
    """
    processor = document.get("post_processor")
    if processor is None:
        return [], []
    before: list[int] = []
    after: list[int] = []
    try:
        for step in processor["processors"] if _is(processor, "Sequence") else [processor]:
            first, last = _ends(step)
            before, after = first + before, after + last
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{source}: post_processor is not understood ({error!r})") from None
    return before, after


def _ends(step: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    if _is(step, "BertProcessing") or _is(step, "RobertaProcessing"):
        return [int(step["cls"][1])], [int(step["sep"][1])]
    if not _is(step, "TemplateProcessing"):
        return [], []
    pieces = step["single"]
    place = ["Sequence" in piece for piece in pieces].index(True)
    special = step["special_tokens"]

    def ids(some: Sequence[Mapping[str, Any]]) -> list[int]:
        return [int(i) for item in some for i in special[item["SpecialToken"]["id"]]["ids"]]

    return ids(pieces[:place]), ids(pieces[place + 1 :])


def _is(step: Mapping[str, Any], kind: str) -> bool:
    return bool(step["type"] == kind)


def require_readable(folder: Path) -> None:
    """Open the tokenizer, as every runtime that takes the file will.

    Raises:
        InputError: Hugging Face's tokenizers library cannot read it.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    try:
        Tokenizer.from_file(str(path))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be opened ({reason}), so nothing could load it; save the tokenizer"
            " again with transformers' save_pretrained"
        ) from None
