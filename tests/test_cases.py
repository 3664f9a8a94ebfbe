"""Each case of public reports comes out as it should: exported like transformers, or one line."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.sources.quantised.conversion import plan_conversion
from export.targets import Target
from runtimes.pytorch.loading import load_model, load_tokenizer
from tests.cases import (
    BASE,
    CALLS,
    CARD,
    CARDS,
    CHATML_IN_GENERATION,
    CUT,
    DATED,
    EMBEDDING,
    FIXED,
    FLAGS,
    GENERATION,
    HEADERS,
    LLAMA3_WORDS,
    NO_IDS,
    NO_SYSTEM,
    NOTHING,
    QWEN2,
    QWEN2_WORDS,
    SETTINGS,
    TEMPLATE,
    THINKS,
    TOKEN,
    TOKENIZER,
    TOOLS,
    WEIGHTS,
    Change,
    adapter,
    added,
    around,
    both,
    configured,
    generating,
    grown,
    head,
    header,
    hub_cache,
    linked,
    merges_as_text,
    mixed,
    pruned,
    put,
    quantised,
    removed,
    settled,
    split_by,
    stale_index,
    stray_shard,
    tokenized,
    trainer,
    vocab_and_merges,
    weighed,
)
from tests.sentencepiece import LEGACY, with_sentencepiece
from tests.sentencepiece import tokenizer as sentencepiece
from tests.test_quirks_fuzz import planned
from tests.tiny import CHAT_TEMPLATE, VOCAB, make_checkpoint

OLD_TEMPLATE = CHAT_TEMPLATE.replace("<|im_start|>", "<|endoftext|>")
TOKENS = 336  # that the tokenizer has
NO_TEMPLATE = settled(chat_template=...)
TOKENS_OF_THE_BASE = configured(bos_token_id=0, eos_token_id=0)
CALL = {"content": "<|tool_call|>", "special": True, **FLAGS}
# What people have -> what is done to a healthy checkpoint, and how it is refused: by every format,
# or by some; None where it is exported by all.
Outcome = str | dict[str, str] | None
CASES: dict[str, tuple[Change, Outcome]] = {
    "healthy": (lambda folder: None, None),
    # Weights
    "tied head in another shard": (weighed(head(), shards=2), None),
    "tied head in the same file": (weighed(head()), None),
    "tied but trained head": (weighed(head(np.ones((VOCAB, 64), np.float32))), "lm_head"),
    "tie says nothing, head absent": (configured(tie_word_embeddings=False), "tie_word_embeddings"),
    "stale index, shards gone": (partial(stale_index, keep=False), None),
    "stale index, old shards": (partial(stale_index, keep=True), None),
    "stray shard of another save": (stray_shard, None),
    "one shard without an index": (
        lambda f: (f / WEIGHTS).rename(f / "model-00001-of-00001.safetensors") and None,
        "index",
    ),
    "no prefix": (
        weighed(lambda found: {k.removeprefix("model."): v for k, v in found.items()}),
        None,
    ),
    "compiled prefix": (
        weighed(lambda found: {f"_orig_mod.{k}": v for k, v in found.items()}),
        "_orig_mod",
    ),
    "adapter": (partial(adapter, alone=True), "an adapter of some-org/some-base"),
    "adapter with a config": (partial(adapter, alone=False), "an adapter of some-org/some-base"),
    "bitsandbytes, damaged": (quantised("bitsandbytes", stored=True), "bitsandbytes"),
    "GPTQ, damaged": (quantised("gptq", stored=True), r"qweight has shape \[2, 2\], expected"),
    "leftover quantisation": (quantised("bitsandbytes", stored=False), None),
    "float64": (weighed(lambda found: {k: v.astype("f8") for k, v in found.items()}), "F64"),
    "ZeRO-3 placeholder": (
        weighed(lambda found: {**found, EMBEDDING: np.zeros(0, np.float32)}),
        "embed_tokens",
    ),
    "inv_freq of each layer": (
        weighed(
            lambda found: {
                **found,
                **{
                    f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)
                    for i in range(3)
                },
            }
        ),
        None,
    ),
    "inv_freq of the model": (
        weighed(lambda found: {**found, "model.rotary_emb.inv_freq": np.ones(8, np.float32)}),
        None,
    ),
    "no metadata": (partial(header, change=lambda raw: raw.pop("__metadata__")), None),
    "metadata without format": (
        partial(header, change=lambda raw: raw.update(__metadata__={"total_size": "1"})),
        None,
    ),
    "empty metadata": (partial(header, change=lambda raw: raw.update(__metadata__={})), None),
    "unaligned header": (partial(header, pad=1), None),
    "Git LFS pointer": (
        put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "git lfs pull",
    ),
    "grown embedding": (weighed(grown), "embed_tokens"),
    "bfloat16 and float32": (weighed(mixed), None),
    "fewer layers than stored": (configured(num_hidden_layers=2), "num_hidden_layers|unexpected"),
    # config.json
    "empty rope scaling": (configured(rope_scaling={}), None),
    "null rope scaling and head size": (configured(rope_scaling=None, head_dim=None), None),
    "config of transformers 5": (
        configured(
            rope_theta=...,
            torch_dtype=...,
            dtype="float32",
            head_dim=16,
            rope_scaling=None,
            rope_parameters={"rope_theta": 1e5, "rope_type": "default"},
        ),
        None,
    ),
    "two rope spellings": (
        configured(rope_theta=1e4, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}),
        None,
    ),
    "no rope theta": (configured(rope_theta=...), None),
    "null epsilon": (configured(rms_norm_eps=None), "rms_norm_eps must be a number"),
    "rope theta as text": (configured(rope_theta="10000.0"), "rope_theta"),
    "null biases": (configured(attention_bias=None, mlp_bias=None), None),
    "no cache": (both(configured(use_cache=False), generating(use_cache=False)), None),
    "name of the base": (configured(_name_or_path=BASE), None),
    "flash attention saved": (configured(_attn_implementation="flash_attention_2"), None),
    "padded vocabulary": (
        both(
            configured(vocab_size=VOCAB + 64),
            weighed(
                lambda found: {
                    **found,
                    EMBEDDING: np.concatenate([found[EMBEDDING], found[EMBEDDING][:64]]),
                }
            ),
        ),
        None,
    ),
    "Mistral without a window": (
        configured(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=None),
        None,
    ),
    "unknown dtype": (configured(torch_dtype="float8_e4m3fn"), None),
    "auto_map left": (configured(auto_map={"AutoModelForCausalLM": "mine.Mine"}), None),
    # What begins and ends a text
    "ends in config.json alone": (
        both(
            configured(eos_token_id=[2, 0]),
            settled(eos_token=..., pad_token=...),
            removed(GENERATION),
        ),
        None,
    ),
    "end of the base": (
        both(TOKENS_OF_THE_BASE, generating(bos_token_id=0, eos_token_id=0, pad_token_id=...)),
        None,
    ),
    "no stop anywhere": (
        both(
            NO_IDS,
            removed(GENERATION),
            NO_TEMPLATE,
            settled(bos_token=..., eos_token=..., pad_token=...),
        ),
        None,
    ),
    "ids in the settings alone": (
        both(
            NO_IDS,
            removed(GENERATION),
            NO_TEMPLATE,
            settled(bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token=...),
        ),
        None,
    ),
    "padding of -1": (both(configured(pad_token_id=-1), generating(pad_token_id=-1)), None),
    "end beyond the vocabulary": (
        both(configured(eos_token_id=151645), generating(eos_token_id=[2, 151645])),
        None,
    ),
    "repetition penalty": (
        generating(do_sample=True, repetition_penalty=1.3, temperature=0.7, top_p=0.8, top_k=20),
        None,
    ),
    "sampling beside greedy": (
        generating(do_sample=False, temperature=0.7, top_k=None, cache_implementation="hybrid"),
        None,
    ),
    # Tokenizers
    "SentencePiece": (lambda f: with_sentencepiece(f, sentencepiece(LEGACY)) and None, None),
    "tokenizer.model alone": (
        both(removed(TOKENIZER), put("tokenizer.model", b"\n\x0e\n\x05<unk>")),
        "tokenizer.model",
    ),
    "vocab.json and merges.txt alone": (vocab_and_merges, "tokenizer.json"),
    "merges as text": (tokenized(merges_as_text), None),
    "merges missing": (tokenized(lambda raw: raw["model"].pop("merges")), "cannot be opened"),
    "padding and truncation": (
        tokenized(lambda raw: raw.update(padding=FIXED, truncation=CUT)),
        None,
    ),
    "added beyond the vocabulary": (
        both(
            added({"content": "[PAD]"}),
            configured(vocab_size=TOKENS),
            weighed(lambda found: {**found, EMBEDDING: found[EMBEDDING][:TOKENS]}),
        ),
        {"gguf": r"'\[PAD\]' has the id 336.*resize_token_embeddings"},
    ),
    "added with a gap": (added({"content": "<|tool|>", "id": VOCAB - 4}), None),
    "added, not special": (
        added(
            {"content": "<think>", "special": False},
            {"content": "</think>", "special": False},
            {"content": "hydroxychloroquine", "special": False, "normalized": True},
            {"content": "  ", "special": False},
        ),
        None,
    ),
    "added as a whole word": (
        added({"content": "user", "special": False, "single_word": True, "normalized": True}),
        None,
    ),
    "added with spaces": (
        tokenized(lambda raw: raw["added_tokens"][2].update(rstrip=True, lstrip=True)),
        None,
    ),
    "added in the settings alone": (
        settled(
            added_tokens_decoder={str(VOCAB - 9): CALL},
            additional_special_tokens=["<|tool_call|>"],
        ),
        None,
    ),
    "pruned vocabulary": (tokenized(pruned), "cannot be opened"),
    "settings of transformers 5": (
        both(
            settled(
                tokenizer_class="TokenizersBackend",
                backend="tokenizers",
                is_local=True,
                extra_special_tokens=["<|im_start|>"],
                chat_template=...,
                model_specific_special_tokens={},
            ),
            put(TEMPLATE, CHAT_TEMPLATE),
        ),
        None,
    ),
    "no settings": (removed(SETTINGS), None),
    "no tokenizer class": (settled(tokenizer_class=...), None),
    "byte-level LlamaTokenizerFast": (
        settled(
            tokenizer_class="LlamaTokenizerFast",
            legacy=True,
            add_bos_token=True,
            unk_token=None,
            **{f"{role}_token": {**TOKEN, "content": "<|im_end|>"} for role in ("eos", "pad")},
            bos_token={**TOKEN, "content": "<|im_start|>"},
            sp_model_kwargs={},
        ),
        None,
    ),
    "begins with a token": (around("<|im_start|> $A"), None),
    "ends with a token": (around("$A <|im_end|>"), None),
    "end in the settings alone": (
        settled(tokenizer_class="GPT2Tokenizer", add_eos_token=True),
        None,
    ),
    "empty post-processor": (
        tokenized(lambda raw: raw.update(post_processor=NOTHING)),
        dict.fromkeys(("gguf", "mlc"), "not understood"),
    ),
    "Qwen2": (both(QWEN2, split_by(QWEN2_WORDS, nfc=True)), None),
    "Qwen2 without NFC": (both(QWEN2, split_by(QWEN2_WORDS, nfc=False)), None),
    "Llama 3 without ignore_merges": (split_by(LLAMA3_WORDS, nfc=False), None),
    "one text twice": (added({"content": "<|im_end|>", "id": VOCAB - 2}), None),
    # Chat templates
    "template file alone": (put(TEMPLATE, CHAT_TEMPLATE), None),
    "template file and old setting": (
        both(settled(chat_template=OLD_TEMPLATE), put(TEMPLATE, CHAT_TEMPLATE)),
        None,
    ),
    "several templates": (
        settled(
            chat_template=[
                {"name": "default", "template": CHAT_TEMPLATE},
                {"name": "tool_use", "template": TOOLS + CHAT_TEMPLATE},
            ]
        ),
        None,
    ),
    "folder of templates": (
        both(
            NO_TEMPLATE,
            put(TEMPLATE, CHAT_TEMPLATE),
            put("additional_chat_templates/tool_use.jinja", TOOLS + CHAT_TEMPLATE),
        ),
        None,
    ),
    "generation tags": (settled(chat_template=CHATML_IN_GENERATION), None),
    "a date": (settled(chat_template=DATED + CHAT_TEMPLATE), {"mlc": "strftime_now"}),
    "no system message": (settled(chat_template=NO_SYSTEM), None),
    "Llama 3's headers": (settled(chat_template=HEADERS), None),
    "thinking": (settled(chat_template=THINKS), None),
    "fields that plain messages lack": (
        settled(chat_template=CHAT_TEMPLATE.replace("{% for message in messages %}", CALLS, 1)),
        None,
    ),
    # Places and cards
    "odd name": (lambda f: f.rename(f.with_name("my mod\u00e8le (v2) \u2013 final #1")), None),
    "cache of the hub": (hub_cache, None),
    "trailing slash": (lambda f: Path(f"{f}/"), None),
    "long name": (lambda f: f.rename(f.with_name("a-very-long-name-" * 14 + "x")), None),
    "linked folder": (linked, None),
    "output of the trainer": (trainer, "checkpoint-1000"),
    "card with quirks": (put(CARD, CARDS["quirks"]), None),
    "card of odd types": (put(CARD, CARDS["types"]), None),
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a chat template, which would be run in a process: cases of templates have theirs."""
    made = make_checkpoint(tmp_path_factory.mktemp("cases") / "model", seed=3)
    NO_TEMPLATE(made)
    return made


@pytest.mark.parametrize("name", CASES)
def test_it_is_exported_as_transformers_has_it_or_refused_in_a_line(
    healthy: Path, tmp_path: Path, name: str
) -> None:
    change, outcome = CASES[name]
    folder = Path(shutil.copytree(healthy, tmp_path / "model"))
    folder = change(folder) or folder
    if isinstance(outcome, str):
        with pytest.raises(InputError, match=outcome) as caught:
            if "damaged" in name:
                plan_conversion(folder)
            open_checkpoint(folder).check_tokenizer()
        assert "\n" not in str(caught.value)
        return
    refused = planned(folder)
    assert refused.keys() == (outcome or {}).keys()
    for form, message in (outcome or {}).items():
        assert re.search(message, str(refused[form]))
    checkpoint, tokenizer = open_checkpoint(folder), load_tokenizer(folder)
    assert checkpoint.added == tokenizer.get_added_vocab()
    model = dict(load_model(folder).named_parameters())
    assert {p.name for p in checkpoint.parameters} == model.keys()
    for p in checkpoint.parameters:
        stored = np.concatenate(list(checkpoint.blocks(Target(p.name, (p,), p.shape))))
        assert np.array_equal(stored.astype(np.float32), model[p.name].numpy()), p.name
