"""What a GGUF file's metadata has to say: llama.cpp's keys, from the checkpoint's own files.

Keys: gguf's `constants.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeproof.artifact import Artifact, Vocabulary
from edgeproof.checkpoints.special_tokens import listed
from edgeproof.families.context import in_llama_cpp
from runtimes.contents.counted import counted
from runtimes.contents.expectation import Exercised, Expected, Maybe
from runtimes.contents.files import Content, Topic
from runtimes.contents.free import free_keys
from runtimes.contents.gguf_labels import FILE_NAME, FILE_TYPE, labels
from runtimes.contents.gguf_vocabulary import lists
from runtimes.contents.origin import Origin
from runtimes.gguf_file import GgufTensor, read_file
from runtimes.rotary import LONG, divisors, rope_of, scaling_of

# Fields of generation_config.json that llama.cpp takes as its own defaults, and their types.
SAMPLING: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "sequence": ("sequence", str),
    "top_k": ("top_k", int),
    "top_p": ("top_p", (int, float)),
    "min_p": ("min_p", (int, float)),
    "xtc_probability": ("xtc_probability", (int, float)),
    "xtc_threshold": ("xtc_threshold", (int, float)),
    "temp": ("temperature", (int, float)),
    "penalty_last_n": ("penalty_last_n", int),
    "penalty_repeat": ("penalty_repeat", (int, float)),
    "mirostat": ("mirostat", int),
    "mirostat_tau": ("mirostat_tau", (int, float)),
    "mirostat_eta": ("mirostat_eta", (int, float)),
}
SPECIAL = {
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id",
    "sep": "seperator_token_id", "pad": "padding_token_id", "cls": "cls_token_id",
    "mask": "mask_token_id",
}  # fmt: skip
TOPICS = {
    "tokenizer.chat_template": Topic.TEMPLATE,
    **{f"tokenizer.ggml.{kind}_token_id": Topic.METADATA for kind in ("eos", "eot", "eom")},
    "tokenizer.": Topic.TOKENIZER,
}
OF_TOKENS = tuple(f"tokenizer.ggml.{key}" for key in ("tokens", "token_type", "scores"))
DIVISORS = "rope_freqs.weight"
LONG_TABLES = {
    "rope_factors_long.weight": "long_factor",
    "rope_factors_short.weight": "short_factor",
}
DERIVED = {DIVISORS, *LONG_TABLES}
# What llama.cpp computes with beside the architecture's keys. Names, padding and advice on sampling
# are the maker's own; what ends replies, and templates, are compared by what comes of them.
BINDING = (
    DIVISORS, *LONG_TABLES, "split.", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges", "tokenizer.ggml.add_",
)  # fmt: skip


def contents(artifact: Artifact, origin: Origin) -> Iterator[Content]:
    """Every file: of splits, the first has all metadata."""
    paths = artifact.files(".gguf")
    files = [read_file(path) for path in paths]
    tensors = sum(len(stored) for _, stored in files)
    if artifact.foreign is None:
        weights = (item for _, stored in files for item in stored if item.name not in DERIVED)
        yield counted(artifact, origin, sum(item.nbytes for item in weights))
    holder = next((number for number, (_, stored) in enumerate(files) if _derived(stored)), 0)
    for number, (path, (said, stored)) in enumerate(zip(paths, files, strict=True)):
        ours = artifact.foreign is None
        expected: dict[str, Any] = _whole(origin, said, ours=ours) if number == 0 else {}
        if number == holder:
            expected |= _scaled(origin)
        if len(paths) > 1:
            place = {"no": number, "count": len(paths), "tensors.count": tensors}
            expected |= {f"split.{key}": value for key, value in place.items()}
        name = path.relative_to(artifact.path).as_posix()
        binding = (f"{said.get('general.architecture')}.", *BINDING)
        told = _on_common_tokens(said, artifact.vocabulary)
        if ours:
            held = (tensor for _, found in files for tensor in found)
            called = labels(artifact.manifest.variant.name, held, files[0][0].get(FILE_TYPE))
            expected |= called if number == 0 else {FILE_NAME: called[FILE_NAME]}
            told = {**told, FILE_NAME: path.name}
        yield Content(name, {**told, **_derived(stored)}, expected, TOPICS, binding)


def _on_common_tokens(said: dict[str, Any], vocabulary: Vocabulary | None) -> dict[str, Any]:
    """What it says of the original's tokens, where it has more."""
    if vocabulary is None:
        return said
    lists = {key: said[key][: vocabulary.common] for key in OF_TOKENS if key in said}
    size = f"{said.get('general.architecture')}.vocab_size"
    own = {size: vocabulary.common} if said.get(size) == vocabulary.own else {}
    return {**said, **lists, **own}


def _derived(stored: Sequence[GgufTensor]) -> dict[str, list[float]]:
    """Tensors that follow from the config, which no comparison of weights has."""
    return {item.name: item.data.view("<f4").tolist() for item in stored if item.name in DERIVED}


def _whole(origin: Origin, said: dict[str, Any], *, ours: bool) -> dict[str, Any]:
    architecture = origin.family.llama_cpp
    name = architecture.name if architecture else None
    own = architecture.keys(in_llama_cpp(origin.decoder)) if architecture else {}
    lacks = architecture.lacks if architecture else frozenset()
    model = {key: value for key, value in _model(origin).items() if key not in lacks}
    return {
        **free_keys(said),
        "general.name": Exercised("llama.cpp, which knows some tokenizers by it, reads strings"),
        FILE_TYPE: Exercised("each tensor is read by its own type"),
        "general.architecture": name,
        "general.type": "model",
        "general.quantization_version": 2,
        "general.alignment": Exercised("tensors are found by it"),
        **_sampling(origin),
        **{f"{name}.{key}": value for key, value in {**model, **own}.items()},
        **_vocabulary(origin, ours=ours),
    }


def _model(origin: Origin) -> dict[str, Any]:
    facts = origin.facts
    rope, kind = rope_of(origin.config), scaling_of(origin.config)
    expected = {
        "block_count": facts["num_hidden_layers"],
        "context_length": facts["llama_cpp_context"],
        "embedding_length": facts["hidden_size"],
        "feed_forward_length": facts["intermediate_size"],
        "attention.head_count": facts["num_attention_heads"],
        "attention.head_count_kv": facts["num_key_value_heads"],
        "attention.key_length": Maybe(facts["head_dim"]),
        "attention.value_length": Maybe(facts["head_dim"]),
        "attention.layer_norm_rms_epsilon": facts["rms_norm_eps"],
        "rope.freq_base": facts["rope_theta"],
        "rope.dimension_count": Maybe(facts["rotary_dim"]),
        "vocab_size": Maybe(facts["vocab_size"]),
    }
    if kind == "linear":
        expected |= {"rope.scaling.type": kind, "rope.scaling.factor": rope["factor"]}
    return expected


def _scaled(origin: Origin) -> dict[str, Any]:
    """What llama.cpp divides rotary frequencies by, where only a table can say it."""
    rope = rope_of(origin.config)
    if scaling_of(origin.config) == LONG:
        tables = {name: rope[key] for name, key in LONG_TABLES.items()}
        return {name: [_near(float(value)) for value in tables[name]] for name in tables}
    if scaling_of(origin.config) != "llama3":
        return {}
    values = divisors(origin.config, origin.facts["head_dim"])
    return {DIVISORS: [] if values is None else [_near(float(value)) for value in values]}


def _near(value: float) -> Expected:
    return Expected(f"{value:.6g}", lambda said: bool(abs(said - value) <= 1e-4 * value))


def _sampling(origin: Origin) -> dict[str, Any]:
    found = {}
    for key, (field, kinds) in SAMPLING.items():
        value = origin.generation.get(field)
        if isinstance(value, kinds):
            found[f"general.sampling.{key}"] = value
    return found


def _vocabulary(origin: Origin, *, ours: bool) -> dict[str, Any]:
    """The whole tokenizer; of added tokens too, and what is put around a text."""
    ids = {key: _special_id(origin, role) for role, key in SPECIAL.items()}
    expected = {
        **{key: index for key, index in ids.items() if index is not None},
        **_around(origin),
        **lists(origin, ours=ours),
        **dict.fromkeys(("eot_token_id", "eom_token_id"), _further_end(origin)),
    }
    named = {_ascii(name): text for name, text in origin.chat_templates.items()}
    default = named.pop("default", None)
    others: dict[str, Any] = {f"tokenizer.chat_template.{key}": named[key] for key in named}
    if named:
        others["tokenizer.chat_templates"] = sorted(named)
    if default is not None:
        others["tokenizer.chat_template"] = default
    return {**{f"tokenizer.ggml.{key}": value for key, value in expected.items()}, **others}


def _special_id(origin: Origin, role: str) -> int | None:
    """The tokenizer's own token of a role goes before what the model's files say."""
    text = origin.special_text(role)
    own = None if text is None else origin.added.get(text)
    ids = ([] if own is None else [own]) + listed(origin.generation_id(role))
    return next((index for index in ids if 0 <= index < origin.facts["vocab_size"]), None)


def _further_end(origin: Origin) -> Maybe:
    """Where llama.cpp learns of another end: one of generation, or one that the template writes."""
    ends = set(origin.said.stops(int(origin.facts["vocab_size"])))
    template = origin.chat_templates.get("default", "")
    ends |= {index for text, index in origin.added.items() if text in template}
    return Maybe(Expected("a token that ends replies", ends.__contains__))


def _around(origin: Origin) -> dict[str, Any]:
    """The tokens before and after a text; without a key llama.cpp decides by itself."""
    before, after = origin.around
    return {"add_bos_token": bool(before), "add_eos_token": True if after else Maybe(False)}


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
