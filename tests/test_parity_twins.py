"""A file that computes the same model once more is run, and where it differs is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.formats import dequantise, reader_of
from runtimes.parity.localise import Cause, Component
from runtimes.parity.localise.twins import apart, twin_fault
from runtimes.parity.twins import TOKENS, Beginning, beginning, twin_faults
from runtimes.registry import open_runtime
from tests.faults.fault import EditArtifact, Finds, Plant
from tests.faults.graphs import (
    edited,
    edited_table,
    exchanged_cache,
    gate_fed_by_up,
    other_lookup,
    padding_visible,
)
from tests.faults.planting import export
from tests.faults.tensors import LAYER
from tests.tiny import make_checkpoint

IDS = tuple(range(3, 40))


def made(
    root: Path, form: str = "onnx", variant: str = "fp16", edit: EditArtifact | None = None
) -> Artifact:
    plant = Plant(Finds(Cause.NONE), files=edit, variant=variant)
    return export(make_checkpoint(root / "checkpoint"), form, root / form, plant)


def begun(artifact: Artifact) -> Beginning:
    runtime = open_runtime(artifact, 1)
    try:
        return beginning(runtime, IDS)
    finally:
        runtime.close()


@pytest.mark.parametrize("variant", ["fp32", "fp16", "q8", "int8", "q4f16"])
def test_the_graph_at_the_root_gives_what_the_other_gives(tmp_path: Path, variant: str) -> None:
    artifact = made(tmp_path, variant=variant)
    twins = reader_of(artifact).twins(artifact)
    assert len(twins) == 1
    first = begun(artifact)
    assert len(first.logits) == len(first.ids) == TOKENS
    assert [*twin_faults(twins, first, 1)] == []


def test_formats_with_one_file_have_no_twins(tmp_path: Path) -> None:
    artifact = made(tmp_path, "gguf", "f16")
    assert [*reader_of(artifact).twins(artifact)] == []


def test_a_mistake_in_the_root_graph_alone_is_found_and_its_step_named(tmp_path: Path) -> None:
    artifact = made(tmp_path, edit=edited(gate_fed_by_up, root_only=True))
    (twin,) = reader_of(artifact).twins(artifact)
    (text,) = twin_faults([twin], begun(artifact), 1)
    assert text.startswith("model_fp16.onnx computes something else than its twin does: KL ")
    states = reader_of(artifact).states(artifact, IDS, 1)
    found = twin_fault(twin.name, states, twin.states(IDS, 1))
    assert found is not None
    assert (found.cause, found.layer) == (Cause.GRAPH, LAYER)
    assert found.component is Component.ACTIVATION
    assert twin_fault(twin.name, states, states) is None


def test_a_root_graph_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    artifact = made(tmp_path)
    first = begun(artifact)
    (artifact.path / "model_fp16.onnx").write_bytes(b"no graph")
    (text,) = twin_faults(reader_of(artifact).twins(artifact), first, 1)
    assert "model_fp16.onnx" in text
    assert "\n" not in text


def stored_apart(artifact: Artifact) -> Sequence[str]:
    (twin,) = reader_of(artifact).twins(artifact)
    return twin.apart()


GRAPHS = [
    *((variant, {}) for variant in ("fp32", "fp16", "q8", "int8", "q4", "q4f16", "bnb4")),
    ("fp16", {"graph": "portable"}),
]


@pytest.mark.parametrize(("variant", "options"), GRAPHS, ids=str)
def test_both_graphs_are_one_graph(
    tmp_path: Path, variant: str, options: dict[str, object]
) -> None:
    plant = Plant(Finds(Cause.NONE), variant=variant, options=options)
    folder = make_checkpoint(tmp_path / "checkpoint")
    assert stored_apart(export(folder, "onnx", tmp_path / "out", plant)) == []


# None of them shows where a few tokens of one text are read.
UNSEEN = {
    "model.layers.1.self_attn": edited(exchanged_cache, root_only=True),
    "hidden_key_bias": edited(padding_visible, root_only=True),
    "model.embed_tokens": edited_table(other_lookup, but_root=True),
}


@pytest.mark.parametrize("place", UNSEEN)
def test_a_mistake_in_one_graph_that_no_short_run_shows_is_found(
    tmp_path: Path, place: str
) -> None:
    artifact = made(tmp_path, edit=UNSEEN[place])
    assert [*twin_faults(reader_of(artifact).twins(artifact), begun(artifact), 1)] == []
    assert place in stored_apart(artifact)
    (finding,) = apart(artifact)
    assert finding.cause is Cause.GRAPH
    assert finding.text.startswith("model_fp16.onnx goes its own way at ")


def test_a_lookup_that_takes_other_rows_than_the_head_is_refused(tmp_path: Path) -> None:
    artifact = made(tmp_path, edit=edited_table(other_lookup))
    assert stored_apart(artifact) == []
    with pytest.raises(InputError, match="Gather takes other values of model"):
        dequantise(artifact)["model.embed_tokens.weight"]
