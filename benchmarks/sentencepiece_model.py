"""A tiny tokenizer.model by SentencePiece's own trainer, and the tokenizer.json that goes with it.

Both lie in a checkpoint as makers publish them: llama.cpp's converter reads the first, we and
transformers the second.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece as spm

from tests.sentencepiece import tokenizer
from tests.tiny import TRAINING_TEXT, VOCAB, change_json

SPECIAL, OF_USER = ("<unk>", "<s>", "</s>"), "[USER]"  # with the ids 0, 1 and 2
UNUSED_ROWS = 20  # of the embedding


def write_model(folder: Path, front: dict[str, Any], kind: str, *, prefix: bool, bos: bool) -> None:
    """Give a tiny checkpoint a SentencePiece BPE with bytes in place of its own tokenizer.

    `front` is its normalizer and pre-tokenizer, `kind` the class that the settings name. With
    `prefix` a space goes before a text, with `bos` the token that begins one.
    """
    content = _trained(prefix=prefix)
    (folder / "tokenizer.model").write_bytes(content)
    document = _document(spm.SentencePieceProcessor(model_proto=content), front, bos=bos)
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class=kind,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        add_bos_token=bos,
        added_tokens_decoder={
            str(item["id"]): {key: item[key] for key in item if key != "id"}
            for item in document["added_tokens"]
        },
    )


def _trained(*, prefix: bool) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING_TEXT * 20), model_writer=model, model_type="bpe",
        vocab_size=VOCAB - UNUSED_ROWS, byte_fallback=True, add_dummy_prefix=prefix,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=[OF_USER], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def _document(
    model: spm.SentencePieceProcessor, front: dict[str, Any], *, bos: bool
) -> dict[str, Any]:
    texts = [model.id_to_piece(index) for index in range(model.get_piece_size())]
    vocab = {text: index for index, text in enumerate(texts)}
    document = tokenizer(front)
    flags = document["added_tokens"][0]
    added = [*((text, True) for text in SPECIAL), (OF_USER, False)]
    document["added_tokens"] = sorted(
        ({**flags, "id": vocab[text], "content": text, "special": special}
         for text, special in added),
        key=lambda item: item["id"],
    )  # fmt: skip
    whole = [
        text
        for index, text in enumerate(texts)
        if not (model.is_byte(index) or model.is_control(index) or model.is_unknown(index))
        and text != OF_USER
    ]
    pieces = {*whole}
    document["model"]["vocab"] = vocab
    document["model"]["merges"] = [
        [text[:cut], text[cut:]]
        for text in whole  # in the order in which they were merged
        for cut in range(1, len(text))
        if text[:cut] in pieces and text[cut:] in pieces
    ]
    document["post_processor"] = _beginning(vocab["<s>"]) if bos else None
    return document


def _beginning(index: int) -> dict[str, Any]:
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, begin, second],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [index], "tokens": ["<s>"]}},
    }
