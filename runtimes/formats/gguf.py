"""Reading GGUF files as llama.cpp does. Keys: gguf's `constants.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.families import family
from runtimes import openvino
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import Facts, Statement
from runtimes.contents import Content, Origin
from runtimes.formats.reader import Deployment, Engine, Reader, Stops

CHAT_TEMPLATE, STOP = "tokenizer.chat_template", "tokenizer.ggml.eos_token_id"
TYPES, NORMAL = "tokenizer.ggml.token_type", 1
# Key after the architecture's name → fact.
FACTS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "rotary_dim",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "llama_cpp_context",
    "vocab_size": "vocab_size",
}


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
        key = f"tokenizer.ggml.{name}_token_id"
        token = stated.get(key)
        if token is not None:
            if not 0 <= token < len(tokens):
                raise InputError(f"{path}: {key} is {token}, the vocabulary has {len(tokens)}")
            special[f"{name}_token"] = tokens[token]
    return jinja_template(path, stated[CHAT_TEMPLATE], special)


def _stops(artifact: Artifact) -> Stops:
    """llama.cpp's own: of several keys, and by tokens' texts. Pieces of words are none."""
    from runtimes.gguf_file import read_metadata
    from runtimes.llamacpp import stop_tokens

    path = artifact.files(".gguf")[0]
    own, types = stop_tokens(path), read_metadata(path)[TYPES]
    pieces = {index for index in own if types[index] == NORMAL}

    def enough(expected: frozenset[int]) -> bool:
        return own >= expected and pieces <= expected

    return Stops(STOP, own, enough)


def _statements(artifact: Artifact, facts: Facts) -> Iterator[Statement]:
    from runtimes.gguf_file import read_metadata

    stated = read_metadata(artifact.files(".gguf")[0])
    architecture = stated["general.architecture"]
    stated_type = _model_type(architecture, facts["model_type"])
    yield "general.architecture", stated_type, "model_type"
    for key, fact in FACTS.items():
        if f"{architecture}.{key}" in stated:
            yield f"{architecture}.{key}", stated[f"{architecture}.{key}"], fact


def _model_type(architecture: str, expected: str) -> str:
    """The expected family where the file's architecture is that family's in llama.cpp."""
    try:
        known = family(expected).llama_cpp
    except InputError:
        return architecture
    return expected if known and known.name == architecture else architecture


def _contents(artifact: Artifact, origin: Origin) -> Iterable[Content]:
    from runtimes.contents.gguf import contents

    return contents(artifact, origin)


# All layers on a GPU, by what llama-cpp-python was built for.
GPU = Adapter(
    "runtimes.llamacpp_gpu",
    ("llama_cpp",),
    "llamacpp",
    device="gpu",
    activations="float32",
    real=True,
    in_process=True,
    code=None,
)

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
    others={
        "llamacpp-gpu": GPU,
        "openvino": openvino.adapter("gguf", "openvino_genai", "OpenVINO GenAI"),
    },
    weights=_weights,
    states=_states,
    twins=lambda artifact: (),
    chat_template=_chat_template,
    stops=_stops,
    statements=_statements,
    contents=_contents,
    deployments=(Deployment("llama.cpp", activations=None, device="cpu"),),
    marker="s",
    engine=Engine(
        modules=("engine-wllama.js",),
        brought=(),
        scripts=("wllama.min.js", "wllama.wasm"),
        reads=("*.gguf",),
        requirement=None,
    ),
)
