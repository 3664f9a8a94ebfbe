"""A format of one's own is compared and localised, without an edit elsewhere.

All of it is in this module: the writer (12-bit codes with a scale a row, in one .npz), the reader,
the adapter, and the entry point by which another package would bring them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from edgeproof.artifact import (
    Artifact,
    ArtifactWriter,
    ModelIdentity,
    Precision,
    Recipe,
    Variant,
    open_artifact,
)
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import Facts, Statement, end_tokens, facts_of
from runtimes.formats import Deployment, Reader, Stops, dequantise, known_formats, reader_of
from runtimes.parity.__main__ import main as parity_main
from runtimes.protocol import Runtime
from runtimes.registry import open_reference
from runtimes.states import LOGITS
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
WEIGHTS, SCALE, CODES = "weights.npz", ".scale", 2047
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
TEXTS = ("Rain fell on the old harbour.", "Two and two are four.", "A goat ate the piano's lid.")
SPOILT = "model.layers.1.mlp.up_proj.weight"


def write(checkpoint: Path, target: Path, spoil: str | None = None, **config: Any) -> Artifact:
    """The toy's exporter; it doubles one matrix and changes config.json if it is told to."""
    stored: dict[str, np.ndarray] = {}
    for name, values in load_file(checkpoint / "model.safetensors").items():
        if values.ndim == 1:
            stored[name] = values
            continue
        scales = np.abs(values).max(1, keepdims=True) / CODES
        stored[name] = np.rint(values / scales).astype(np.int16)
        stored[name + SCALE] = scales * (2 if name == spoil else 1)
    inputs = input_records(sorted(checkpoint.iterdir()), cache_folder() / "digests")
    parameters = sum(values.size for name, values in stored.items() if SCALE not in name)
    model = ModelIdentity("tiny", None, None, parameters, inputs)
    variant = Variant("toy", "i12", Precision.EIGHT_BIT, Recipe())
    with ArtifactWriter.create(target, model, variant, {}) as writer:
        for name in BESIDE:
            raw = {**read_json(checkpoint / name), **(config if name == "config.json" else {})}
            writer.write(name, json.dumps(raw).encode())
        with writer.open(WEIGHTS) as file, tempfile.TemporaryFile() as buffer:
            np.savez(buffer, **stored)  # type: ignore[arg-type]
            buffer.seek(0)
            file.write(buffer.read())
        writer.stats.add("int12", parameters, sum(values.nbytes for values in stored.values()))
    return open_artifact(target)


def weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    """Codes times scales."""
    with np.load(artifact.path / WEIGHTS) as stored:
        return {
            name: stored[name] * stored[name + SCALE] if name + SCALE in stored else stored[name]
            for name in stored
            if not name.endswith(SCALE)
        }


class ToyRuntime:
    """PyTorch on the file's own weights; everything else is its."""

    name = "toy"

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        for name in BESIDE:
            shutil.copyfile(artifact.path / name, folder / name)
        save_file(dict(weights(artifact)), folder / "model.safetensors", {"format": "pt"})
        self._model = open_reference(folder, threads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def close(self) -> None:
        self._model.close()
        self._folder.cleanup()


def open_runtime(artifact: Artifact, threads: int) -> Runtime:
    """What makes this module an adapter's."""
    runtime: Runtime = ToyRuntime(artifact, threads)
    return runtime


def states(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    runtime = ToyRuntime(artifact, threads)
    try:
        return {**runtime.states(ids), LOGITS: runtime.logits(ids)}
    finally:
        runtime.close()


def chat_template(artifact: Artifact) -> Render | None:
    path = artifact.path / "tokenizer_config.json"
    settings = read_json(path)
    special = {key: value for key, value in settings.items() if key.endswith("_token")}
    return jinja_template(path, settings["chat_template"], special)


def stops(artifact: Artifact) -> Stops:
    stated = end_tokens(artifact.path)
    return Stops("eos", stated, lambda expected: stated == expected)


def statements(artifact: Artifact, _: Facts) -> Iterator[Statement]:
    for name, value in facts_of(read_json(artifact.path / "config.json")).items():
        yield f"toy.{name}", value, name


READER = Reader(
    adapter=Adapter(
        __name__,
        ("torch", "transformers"),
        "parity",
        device="cpu",
        activations="float32",
        real=True,
        in_process=True,
        code=None,
    ),
    others={},
    weights=weights,
    states=states,
    chat_template=chat_template,
    stops=stops,
    statements=statements,
    deployments=(Deployment("a toy machine", activations=None),),
    marker="P",
    engine=None,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's package as pip would leave it, for this process and for those it starts."""
    site = tmp_path / "site"
    declare(site, f"{__name__}:READER")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))


def declare(site: Path, reader: str) -> None:
    info = site / "toy_format-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-format\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgeproof.readers]\ntoy = {reader}\n")


def compare(artifact: Artifact, checkpoint: Path, *options: str) -> tuple[Result, Any]:
    """Run parity on a short text: what it said, and its record of the artifact."""
    root = artifact.path.parent
    lines = (json.dumps({"text": f"{text} " * 4}) for text in TEXTS)
    (root / "text.jsonl").write_text("\n".join(lines))
    arguments = [
        artifact.path, "--checkpoint", checkpoint, "--text", root / "text.jsonl",
        "--json", root / "parity.json", "--threads", 1, *options,
    ]  # fmt: skip
    result = CliRunner().invoke(parity_main, [str(a) for a in arguments], catch_exceptions=False)
    (record,) = json.loads((root / "parity.json").read_text())["artifacts"]
    return result, record


@pytest.mark.usefixtures("installed")
def test_parity_compares_it_and_says_where_to_ship_it(checkpoint: Path, tmp_path: Path) -> None:
    result, record = compare(write(checkpoint, tmp_path / "out" / "i12"), checkpoint)
    assert result.exit_code == 0, result.output
    assert (record["format"], record["verdict"]) == ("toy", "PASS")
    measured = record["measurement"]
    assert measured["tokenizer_mismatches"] == 0
    assert measured["chat_template"]["fault"] is None
    assert measured["footprint"]["peak_mb"] > 0, "its own process finds the reader as well"
    # The runtime computes as the reference does: what the weights cost is all there is.
    assert measured["estimates"]["mean_kl"]["value"] > 0
    assert measured["weights"]["mean_kl"]["value"] == pytest.approx(
        measured["estimates"]["mean_kl"]["value"], rel=1e-2
    )
    assert "a toy machine" in result.output
    assert "toy i12" in (tmp_path / "out" / "parity.html").read_text("utf-8")


@pytest.mark.usefixtures("installed")
def test_a_spoilt_matrix_is_found_by_name(checkpoint: Path, tmp_path: Path) -> None:
    artifact = write(checkpoint, tmp_path / "out" / "i12", spoil=SPOILT)
    result, record = compare(artifact, checkpoint, "--no-footprint")
    assert result.exit_code == 1
    first = record["localisation"]["findings"][0]
    assert (first["cause"], first["layer"]) == ("weights", 1)
    assert SPOILT in first["text"]
    assert len(record["localisation"]["layer_errors"]) == 3 + 2, "hidden states were traced"


@pytest.mark.usefixtures("installed")
def test_a_wrong_statement_is_found_by_its_key(checkpoint: Path, tmp_path: Path) -> None:
    artifact = write(checkpoint, tmp_path / "out" / "i12", rope_theta=5000.0)
    result, record = compare(artifact, checkpoint, "--no-footprint")
    assert result.exit_code == 1
    findings = record["localisation"]["findings"]
    assert any(found["key"] == "toy.rope_theta" for found in findings)


@pytest.mark.usefixtures("installed")
def test_it_is_named_among_the_known_formats(checkpoint: Path, tmp_path: Path) -> None:
    assert known_formats() == ["onnx", "gguf", "mlc", "toy"]
    artifact = write(checkpoint, tmp_path / "i12")
    original = load_file(checkpoint / "model.safetensors")
    assert dequantise(artifact).keys() == original.keys()


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        ("no_such_module:READER", "No module named 'no_such_module'"),
        (f"{__name__}:NO_READER", "has no attribute 'NO_READER'"),
        (f"{__name__}:ROOT", "is no runtimes.formats.Reader"),
    ],
)
def test_a_reader_that_cannot_be_used_is_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, reason: str
) -> None:
    declare(tmp_path / "site", reader)
    monkeypatch.syspath_prepend(tmp_path / "site")
    artifact = write(checkpoint, tmp_path / "i12")
    with pytest.raises(InputError, match=reason) as caught:
        reader_of(artifact)
    assert reader in str(caught.value)
    assert "\n" not in str(caught.value)


def test_uninstalled_it_is_refused_with_the_formats_known(checkpoint: Path, tmp_path: Path) -> None:
    artifact = write(checkpoint, tmp_path / "i12")
    with pytest.raises(InputError, match=r"i12: nothing here reads the format 'toy'; known: onnx"):
        reader_of(artifact)
