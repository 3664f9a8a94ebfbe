"""Faults that begin late: a long text's end shows them, whatever a graph says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, helper, numpy_helper

from edgeproof.files.hashing import input_records
from runtimes.parity.localise import Cause, Component, Subject, localise
from runtimes.parity.long_range import (
    FLOOR,
    TIMES,
    LongRange,
    Probe,
    load_probe,
    measure_long_range,
    probe_ids,
)
from runtimes.parity.suite import LONGEST_PROBE, PROBE, Budget, Suite, built_in, long_text
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference, open_runtime
from tests.faults.fault import Finds, Plant
from tests.faults.graphs import COSINES, SINES
from tests.faults.planting import export
from tests.parity_results import measurement
from tests.tiny import make_checkpoint

CONTEXT, LATE = 512, 300


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("long"), max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Iterator[TorchRuntime]:
    runtime = open_reference(checkpoint, 1)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def probe(
    reference: TorchRuntime, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Probe:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        records = input_records([checkpoint / "config.json"], tmp_path_factory.mktemp("digests"))
        found = load_probe(reference, PROBE, records)
        assert found is not None
        again = load_probe(reference, PROBE, records)
        assert again is not None
        np.testing.assert_array_equal(again.hidden, found.hidden)
        return found


def test_every_built_in_text_has_a_probe_and_the_full_one_the_longest() -> None:
    assert [built_in(budget).probe for budget in Budget] == [PROBE, PROBE, LONGEST_PROBE]
    assert Suite("one's own", ()).probe == 0


def test_the_probe_fills_the_context_and_ends_as_it_begins(
    probe: Probe, reference: TorchRuntime
) -> None:
    assert len(probe.ids) == CONTEXT
    count = CONTEXT - probe.first
    assert len(probe.hidden) == count > 100
    repeated = CONTEXT // 3
    assert probe.ids[-repeated:] == probe.ids[:repeated]
    ids = reference.tokenize(long_text())
    assert len(ids) > LONGEST_PROBE
    assert list(probe.ids[: CONTEXT - repeated]) == ids[: CONTEXT - repeated]
    assert probe_ids([1, 2, 3], 8, 2) == (1, 2, 3, 1, 2, 3, 1, 2)


def test_rows_of_the_end_are_those_of_the_whole(reference: TorchRuntime, probe: Probe) -> None:
    whole = reference.logits(probe.ids)
    for first in (0, 1, 100, CONTEXT - 1):
        rows = np.concatenate([block.copy() for block in reference.logit_blocks(probe.ids, first)])
        np.testing.assert_allclose(rows, whole[first:], atol=1e-4)


def measured(
    checkpoint: Path, probe: Probe, head: np.ndarray, root: Path,
    edit: Callable[[GraphProto, Path], None] | None = None, form: str = "onnx",
) -> LongRange:  # fmt: skip
    """The probe on an export, its graph edited."""
    options = {"graph": "portable"} if form == "onnx" else {}
    artifact = export(checkpoint, form, root / form, Plant(Finds(Cause.NONE), options=options))
    if edit is not None:
        path = artifact.path / "onnx" / "model_fp16.onnx"
        model = onnx.load(path, load_external_data=False)
        edit(model.graph, path.parent)
        onnx.save(model, path)
    runtime = open_runtime(artifact, 1)
    try:
        return measure_long_range(runtime, probe, head, 0.0)
    finally:
        runtime.close()


@pytest.mark.parametrize("form", ["onnx", "gguf"])
def test_a_sound_export_is_right_at_the_end_too(
    checkpoint: Path, probe: Probe, reference: TorchRuntime, tmp_path: Path, form: str
) -> None:
    found = measured(checkpoint, probe, reference.head, tmp_path, form=form)
    assert found.fault is None
    assert (found.tokens, found.positions) == (CONTEXT, CONTEXT - probe.first)
    assert found.kl < FLOOR / 10


def window(graph: GraphProto, _: Path) -> None:
    """A window in the mask's own nodes, which no attribute tells."""
    (node,) = (item for item in graph.node if item.op_type == "LessOrEqual")
    keys, queries, causal = node.input[0], node.input[1], node.output[0]
    node.output[0] = f"{causal}/before"
    size = numpy_helper.from_array(np.array(LATE // 2, np.int64), "fault.window")
    graph.initializer.append(size)
    added = [
        helper.make_node("Add", [keys, size.name], ["fault.reach"]),
        helper.make_node("Greater", ["fault.reach", queries], ["fault.near"]),
        helper.make_node("And", [node.output[0], "fault.near"], [causal]),
    ]
    place = list(graph.node).index(node) + 1
    rest = list(graph.node)[place:]
    del graph.node[place:]
    graph.node.extend([*added, *rest])


def late(
    name: str, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[GraphProto, Path], None]:
    """A stored table that is another from some position on."""

    def edit(graph: GraphProto, folder: Path) -> None:
        (tensor,) = (item for item in graph.initializer if item.name == name)
        table = np.array(numpy_helper.to_array(tensor, str(folder)))
        table[LATE:] = change(table[LATE:])
        tensor.CopyFrom(numpy_helper.from_array(table, name))

    return edit


@pytest.mark.parametrize(
    "edit",
    [window, late(COSINES, lambda rows: rows[:1]), late(SINES, lambda rows: -rows)],
    ids=["window", "cosines that end", "sines that turn"],
)
def test_what_begins_late_is_found(
    checkpoint: Path,
    probe: Probe,
    reference: TorchRuntime,
    tmp_path: Path,
    edit: Callable[[GraphProto, Path], None],
) -> None:
    found = measured(checkpoint, probe, reference.head, tmp_path, edit)
    assert found.fault is not None
    assert found.fault.startswith("long range: the last")


def test_the_limit_follows_what_the_artifact_costs_elsewhere(
    probe: Probe, reference: TorchRuntime
) -> None:
    assert measure_long_range(reference, probe, reference.head, 0.5).limit == TIMES * 0.5
    assert measure_long_range(reference, probe, reference.head, 0.0).limit == FLOOR


def test_a_context_that_is_too_short_is_found(probe: Probe, reference: TorchRuntime) -> None:
    longer = Probe((*probe.ids, 1), probe.first, probe.hidden)
    found = measure_long_range(reference, longer, reference.head, 0.0)
    assert found.fault is not None
    assert "longer than the file's context" in found.fault


@pytest.mark.parametrize("compared", [True, False])
def test_where_nobody_compared_the_weights_only_what_was_measured_is_said(
    checkpoint: Path, reference: TorchRuntime, tmp_path: Path, compared: bool
) -> None:
    artifact = export(checkpoint, "onnx", tmp_path, Plant(Finds(Cause.NONE)))
    if not compared:
        variant = artifact.manifest.variant
        traced = replace(variant, facts=replace(variant.facts, traced=True))
        artifact = replace(artifact, manifest=replace(artifact.manifest, variant=traced))
    fault = "differ by KL 0.5, more than 0.1 (4 times the other text's, at least 0.01)"
    found = replace(measurement(), long_range=LongRange(2048, 256, 0.5, 0.1))
    subject = Subject(artifact, checkpoint, reference, [1, 2, 3], 1)
    findings = localise(subject, found, trace=False).findings
    (late_fault,) = (finding for finding in findings if finding.cause is Cause.GRAPH)
    assert fault in late_fault.text
    assert late_fault.text.endswith(": attention or positions change on the way") == compared
    assert (late_fault.component is Component.ATTENTION) == compared
