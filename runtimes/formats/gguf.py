"""Reading GGUF files as llama.cpp does. Keys: gguf's `constants.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgeproof.artifact import Artifact
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import Facts, Statement
from runtimes.formats.reader import Deployment, Engine, Reader, Stops

CHAT_TEMPLATE, STOP = "tokenizer.chat_template", "tokenizer.ggml.eos_token_id"
# Key after the family's name → fact.
FACTS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
FAMILIES = {"mistral": "llama"}  # others have Hugging Face's name


def _weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    from runtimes.weights.gguf import read

    return read(artifact)


def _states(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    from runtimes.states.gguf import trace

    return trace(artifact, ids, threads)


def _chat_template(artifact: Artifact) -> Render | None:
    from runtimes.gguf_file import read_metadata

    path = artifact.files(".gguf")[0]
    stated = read_metadata(path)
    if CHAT_TEMPLATE not in stated:
        return None
    tokens, special = stated["tokenizer.ggml.tokens"], {}
    for name in ("bos", "eos"):
        token = stated.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None:
            special[f"{name}_token"] = tokens[token]
    return jinja_template(path, stated[CHAT_TEMPLATE], special)


def _stops(artifact: Artifact) -> Stops:
    """One token; llama.cpp finds further ones by their text."""
    from runtimes.gguf_file import read_metadata

    stop = read_metadata(artifact.files(".gguf")[0]).get(STOP)
    stated: frozenset[int] = frozenset() if stop is None else frozenset([int(stop)])
    return Stops(STOP, stated, lambda expected: bool(stated) and stated <= expected)


def _statements(artifact: Artifact, facts: Facts) -> Iterator[Statement]:
    from runtimes.gguf_file import read_metadata

    stated = read_metadata(artifact.files(".gguf")[0])
    family = stated["general.architecture"]
    expected = facts["model_type"]
    yield "general.architecture", _reverse(family, expected), "model_type"
    for key, fact in FACTS.items():
        if f"{family}.{key}" in stated:
            yield f"{family}.{key}", stated[f"{family}.{key}"], fact


def _reverse(family: str, expected: str) -> str:
    """Hugging Face's name of llama.cpp's family where it is the expected one."""
    return expected if FAMILIES.get(expected, expected) == family else family


READER = Reader(
    adapter=Adapter(
        "runtimes.llamacpp",
        ("llama_cpp",),
        "llamacpp",
        device="cpu",
        activations="float32",
        real=True,
        in_process=True,
        code=None,
    ),
    others={},
    weights=_weights,
    states=_states,
    chat_template=_chat_template,
    stops=_stops,
    statements=_statements,
    deployments=(Deployment("llama.cpp", activations=None),),
    marker="s",
    engine=Engine(
        modules=("engine-wllama.js",),
        brought=(),
        scripts=("wllama.min.js", "wllama.wasm"),
        reads=("*.gguf",),
        requirement=None,
    ),
)
