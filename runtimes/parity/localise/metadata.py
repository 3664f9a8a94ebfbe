"""What an artifact says of the model beside its weights, against the checkpoint's config."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from runtimes.config_facts import UNEXPLAINED, Statement, facts_of
from runtimes.formats import reader_of
from runtimes.onnx_folder import module_of
from runtimes.parity.localise.contents import MALFORMED, compare_contents
from runtimes.parity.localise.names import place_of
from runtimes.parity.localise.result import Cause, Component, Finding
from runtimes.parity.localise.stops import compare_stops
from runtimes.rotary import RotaryTable

# What part of the model a fact is about, if it is one's.
COMPONENTS: dict[str, Component | None] = {
    "hidden_size": None,
    "intermediate_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": Component.ATTENTION,
    "num_key_value_heads": Component.ATTENTION,
    "head_dim": Component.ATTENTION,
    "attention_scale": Component.ATTENTION,
    "rotary": Component.ROPE,
    "rotary_dim": Component.ROPE,
    "interleaved": Component.ROPE,
    "rope_theta": Component.ROPE,
    "rotary_cosine": Component.ROPE,
    "rotary_sine": Component.ROPE,
    "sliding_window": Component.ATTENTION,
    "softcap": Component.ATTENTION,
    UNEXPLAINED: None,
    "rms_norm_eps": Component.INPUT_NORM,
    "vocab_size": Component.EMBEDDING,
    "context": None,
    "windowed_context": None,
    "llama_cpp_context": None,
    "tie_word_embeddings": Component.HEAD,
    "model_type": None,
}
TOLERANCE = 1e-5  # of numbers, which files have in float32
SHOWN = 5


def compare_metadata(artifact: Artifact, checkpoint: Path) -> tuple[Finding, ...]:
    """One finding for each fact that the artifact states wrongly, and for each file that does.

    Raises:
        InputError: a file of the artifact cannot be read, or is malformed.
    """
    facts = facts_of(read_json(checkpoint / "config.json"))
    if artifact.vocabulary is not None:
        facts["vocab_size"] = artifact.vocabulary.own
    wrong: dict[str, list[Statement]] = {}
    try:
        statements = [*reader_of(artifact).statements(artifact, facts)]
    except MALFORMED as error:
        raise InputError(f"{artifact.path}: its metadata cannot be read ({error})") from None
    for statement in statements:
        _, said, fact = statement
        if fact == UNEXPLAINED or (fact in facts and not _equal(said, facts[fact])):
            wrong.setdefault(fact, []).append(statement)
    found = [_finding(fact, statements, facts.get(fact)) for fact, statements in wrong.items()]
    found += compare_stops(artifact, checkpoint)
    known = {key for statements in wrong.values() for key, _, _ in statements}
    known |= {finding.key for finding in found if finding.key}
    return (*found, *compare_contents(artifact, checkpoint, known))


def _equal(said: Any, known: Any) -> bool:
    if isinstance(known, RotaryTable):
        return isinstance(said, np.ndarray) and known.wrong_row(said) is None
    if isinstance(known, float | int) and not isinstance(known, bool):
        return isinstance(said, float | int) and math.isclose(said, known, rel_tol=TOLERANCE)
    return bool(said == known)


def _finding(fact: str, statements: list[Statement], known: Any) -> Finding:
    key, said, _ = statements[0]
    places = [place_of(module_of(name.partition(" ")[0]) or "") for name, _, _ in statements]
    layer, component = places[0]
    more = f" (and {len(statements) - 1} more)" if len(statements) > 1 else ""
    if isinstance(known, RotaryTable):
        text = f"{key} {_row_shown(said, known)}{more}"
    elif fact == UNEXPLAINED:
        text = f"{key} is {_shown(said)}, which nothing in the checkpoint explains{more}"
    else:
        text = f"{key} is {_shown(said)}, the checkpoint's {fact} is {_shown(known)}{more}"
    return Finding(
        Cause.METADATA, text, layer, component or COMPONENTS[fact.partition(".")[0]], key=key
    )


def _row_shown(said: Any, known: RotaryTable) -> str:
    """The first wrong row of a stored table."""
    if not isinstance(said, np.ndarray):
        return "is no stored table, so that its values cannot be compared"
    row = known.wrong_row(said) or 0
    right = _shown(known.rows(row, row + 1)[0])
    if row >= len(said):
        return f"ends at position {row}, the checkpoint's has {known.positions} positions"
    return f"is {_shown(said[row])} at position {row}, the checkpoint's {right}"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"[{', '.join(f'{item:.4g}' for item in value[:SHOWN])} …]"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
