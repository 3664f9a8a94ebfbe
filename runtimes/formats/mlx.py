"""Reading MLX folders as mlx_lm does. Keys: those of config.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.chat_template import DEFAULT, chat_templates, template_source
from edgeproof.checkpoints.settings import special_texts, tokenizer_settings
from edgeproof.checkpoints.special_tokens import CONFIG
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import END, SAME_NAME, Facts, Statement, end_tokens
from runtimes.contents import Content, Origin
from runtimes.formats.reader import Deployment, Reader, Stops
from runtimes.said import read

# Key of config.json → fact.
FACTS = {
    **{name: name for name in SAME_NAME},
    "model_type": "model_type",
    "rope_theta": "rope_theta",
    "max_position_embeddings": "context",
}


def _weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    from runtimes.weights import mlx

    return mlx.read(artifact)


def _states(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    from runtimes.states.mlx import trace

    return trace(artifact, ids, threads)


def _chat_template(artifact: Artifact) -> Render | None:
    settings = tokenizer_settings(lambda name: read(artifact.path, name))
    text = chat_templates(artifact.path, settings).get(DEFAULT)
    if text is None:
        return None
    return jinja_template(template_source(artifact.path), text, special_texts(settings))


def _stops(artifact: Artifact) -> Stops:
    """mlx_lm takes generation_config.json's, else config.json's, else the tokenizer's."""
    stated = end_tokens(artifact.path)
    return Stops(END, stated, lambda expected: stated == expected)


def _statements(artifact: Artifact, _: Facts) -> Iterator[Statement]:
    config = read_json(artifact.path / CONFIG)
    for key, fact in FACTS.items():
        if key in config:
            yield f"{CONFIG} {key}", config[key], fact


def _contents(artifact: Artifact, origin: Origin) -> Iterable[Content]:
    from runtimes.contents.mlx import contents

    return contents(artifact, origin)


READER = Reader(
    adapter=Adapter(  # on a CPU, whose float16 MLX computes too slowly
        "runtimes.mlx",
        ("mlx", "mlx_lm"),
        "mlx",
        device="cpu",
        activations="float32",
        real=True,
        in_process=True,
        code=None,
    ),
    others={},
    weights=_weights,
    states=_states,
    twins=lambda artifact: (),
    chat_template=_chat_template,
    stops=_stops,
    statements=_statements,
    contents=_contents,
    deployments=(Deployment("MLX on Apple silicon", activations=None, device="gpu"),),
    marker="D",
    engine=None,
)
