"""A format of one's own goes from a plan to the demo, without an edit elsewhere.

All of it is in this module: the writer (12-bit codes with a scale a row), the reader, the adapter,
and the entry points by which another package would bring them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import load_file, save, save_file

from edgeproof import artifact as artifacts
from edgeproof.artifact import Artifact, ArtifactWriter, ModelIdentity, Precision, Variant
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from edgeproof.files.hashing import file_sha256
from export import formats
from export.checkpoint import Checkpoint, open_checkpoint
from export.format import Advance, Check, Format
from export.publication import Publication, Released, Repository, repository
from export.targets import Target
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import Facts, Statement, end_tokens, facts_of
from runtimes.contents import Content, Exercised, Origin
from runtimes.formats import Deployment, Engine, Reader, Stops, known_formats
from runtimes.protocol import Runtime
from runtimes.registry import open_reference
from runtimes.rotary import RotaryTable
from runtimes.states import LOGITS
from tests.brought import declare, edgeproof
from tests.exported import export_tiny
from tests.tiny import long_texts, make_checkpoint

ROOT = Path(__file__).parent.parent
CONFIG, SUFFIX, SCALE, CODES = "config.json", ".toy", ".scale", 2047
BESIDE = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json")
SPOILT = "model.layers.1.mlp.up_proj.weight"
PLAN = """
[[variant]]
format = "toy"
dtype = "i12"

[[variant]]
format = "gguf"
dtype = "q8_0"
"""


# What its package has for writing it.


@dataclass(frozen=True)
class Recipe(artifacts.Recipe):
    """One matrix is doubled and the rotary base replaced, if it is asked for."""

    spoil: str | None = None
    theta: float | None = None


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    stored: dict[str, np.ndarray] = {}
    for item in checkpoint.parameters:
        target = Target(item.name, (item,), item.shape)
        values = np.concatenate(list(checkpoint.blocks(target))).astype(np.float32)
        advance(item.size)
        if values.ndim == 1:
            stored[item.name] = values
            writer.stats.add("float32", item.size, values.nbytes)
            continue
        scales = np.abs(values).max(1, keepdims=True) / CODES
        codes = stored[item.name] = np.rint(values / scales).astype(np.int16)
        stored[item.name + SCALE] = scales * (2 if item.name == variant.recipe.spoil else 1)
        writer.stats.add("int12", item.size, codes.nbytes + scales.nbytes)
    theta = {"rope_theta": variant.recipe.theta} if variant.recipe.theta else {}
    for name in BESIDE:
        raw = checkpoint.raw_config | theta if name == CONFIG else checkpoint.json_file(name)
        writer.write(name, json.dumps(raw).encode())
    with writer.open(variant.name + SUFFIX) as file, file.section("all"):
        file.write(save(stored))


def with_options(variant: Variant[Recipe], **options: Any) -> Variant[Recipe]:
    return replace(variant, recipe=Recipe(**options))


def check(_: Checkpoint, files: Mapping[Path, Mapping[str, str]]) -> str:
    for path, sections in files.items():
        if file_sha256(path) != sections["all"]:
            raise InputError(f"{path}: not what was written")
    return "read back by the toy"


def layout(released: Sequence[Released]) -> Iterator[Repository]:
    """One repository; its config.json lists the variants."""
    config = read_json(released[0].artifact.path / CONFIG)
    config["toys"] = [item.compared.variant for item in released]
    yield repository(released, "TOY", {CONFIG: json.dumps(config).encode()})


FORMAT = Format(
    name="toy",
    title="toy files",
    variants=(Variant("toy", "i12", Precision.EIGHT_BIT, Recipe(), ("twelve",)),),
    tools=("numpy",),
    open=open_checkpoint,
    write=write,
    check=Check(help="Have the toy read it back.", run=check),
    options=(click.Option(["--spoil"]), click.Option(["--theta"], type=float)),
    with_options=with_options,
    engines={},
    example="edgeproof toy --model bundled --dtype i12",
    publication=Publication(
        layout=layout,
        merged=(CONFIG,),
        title="Toy",
        library="toylib",
        tags=("toy",),
        file=re.compile(r".*\.toy"),
        usage=lambda: "**Toys**: `toy {{ hub_id }}/{{ file }}`, {{ best.bytes|mb }} MB.\n",
    ),
)


# What it has for reading it.


def weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    """Codes times scales."""
    stored = load_file(artifact.file(SUFFIX))
    return {
        name: values * stored[name + SCALE] if name + SCALE in stored else values
        for name, values in stored.items()
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
    for name, value in facts_of(read_json(artifact.path / CONFIG)).items():
        if isinstance(value, RotaryTable):
            continue  # it stores none
        yield f"toy.{name}", value, name


def contents(artifact: Artifact, origin: Origin) -> Iterator[Content]:
    for name in BESIDE:
        yield Content(name, read_json(artifact.path / name), read_json(origin.folder / name))
    yield Content(artifact.file(SUFFIX).name, None, Exercised("it is run"))


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
    twins=lambda artifact: (),
    chat_template=chat_template,
    stops=stops,
    statements=statements,
    contents=contents,
    deployments=(Deployment("a toy machine", activations=None, device="cpu"),),
    marker="P",
    engine=Engine(
        modules=("engine-wllama.js",),
        brought=(),
        scripts=("wllama.wasm",),
        reads=("*.toy", CONFIG),
        requirement=None,
    ),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    both = {"formats": f"toy = {__name__}:FORMAT", "readers": f"toy = {__name__}:READER"}
    return declare(tmp_path_factory.mktemp("package") / "site", **both)


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For this process and for those it starts."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))


@pytest.fixture(scope="module")
def out(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan's toy, compared with PyTorch."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "plan.toml").write_text(PLAN)
    lines = (json.dumps({"text": text}) for text in long_texts())
    (folder / "text.jsonl").write_text("\n".join(lines))
    plan = ("--plan", folder / "plan.toml", "--format", "toy")
    model = ("--model", make_checkpoint(folder / "tiny"), "--out", folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        exported = edgeproof("export", *plan, *model)
        assert exported.exit_code == 0, exported.output
        assert "verified: read back by the toy" in exported.output
        compared = edgeproof(
            "parity", "--root", folder / "out", "--text", folder / "text.jsonl", "--threads", "1"
        )
        assert compared.exit_code == 0, compared.output
        assert "a toy machine" in compared.output
    return folder / "out"


def compare(artifact: Artifact, checkpoint: Path, out: Path) -> tuple[Result, Any]:
    """Run parity on one artifact: what it said, and its record of the artifact."""
    report = artifact.path.parent / "parity.json"
    result = edgeproof(
        "parity", artifact.path, "--checkpoint", checkpoint, "--text", out.parent / "text.jsonl",
        "--json", report, "--threads", "1", "--no-footprint",
    )  # fmt: skip
    (record,) = json.loads(report.read_text())["artifacts"]
    return result, record


def test_a_plan_exports_it_alone(out: Path) -> None:
    (manifest,) = out.rglob("edgeproof.json")
    assert manifest == out / "tiny" / "toy" / "i12" / "edgeproof.json"
    assert read_json(manifest)["tools"].keys() == {"edgeproof", "numpy"}


def test_parity_compares_it(out: Path) -> None:
    (record,) = json.loads((out / "tiny" / "parity.json").read_text())["artifacts"]
    assert (record["format"], record["verdict"]) == ("toy", "PASS")
    measured = record["measurement"]
    assert measured["tokenizer_mismatches"] == 0
    assert measured["chat_template"]["fault"] is None
    assert measured["footprint"]["peak_mb"] > 0, "its own process finds the reader as well"
    # The runtime computes as the reference does: what the weights cost is all there is.
    assert measured["estimates"]["mean_kl"]["value"] > 0
    assert measured["weights"]["mean_kl"]["value"] > 0
    assert measured["arithmetic_kl"] == pytest.approx(
        0, abs=1e-2 * measured["estimates"]["mean_kl"]["value"]
    )
    assert "toy i12" in (out / "tiny" / "parity.html").read_text("utf-8")


@pytest.mark.usefixtures("installed")
def test_it_has_a_command_with_its_own_options(out: Path, tmp_path: Path) -> None:
    assert known_formats() == formats.known_formats() == ["onnx", "gguf", "mlc", "mlx", "toy"]
    assert re.search(r"toy +Export a checkpoint to toy \(toy-format 1.0\)", edgeproof().output)
    shown = edgeproof("toy", "--help")
    assert shown.exit_code == 0
    assert "Have the toy read it back." in shown.output
    model = ("--model", out.parent / "tiny", "--out", tmp_path)
    done = edgeproof("toy", *model, "-d", "twelve", "--theta", "5000", "--verify")
    assert done.exit_code == 0, done.output
    assert "(verified: 1 tensors)" in done.output
    assert read_json(tmp_path / "tiny" / "toy" / "i12" / CONFIG)["rope_theta"] == 5000
    again = edgeproof("toy", *model, "-d", "i12", "--theta", "5000")
    assert "unchanged, reused" in again.output


@pytest.mark.usefixtures("installed")
def test_a_spoilt_matrix_is_found_by_name(out: Path, tmp_path: Path) -> None:
    checkpoint = out.parent / "tiny"
    artifact = export_tiny(checkpoint, "toy", "i12", tmp_path, spoil=SPOILT)
    result, record = compare(artifact, checkpoint, out)
    assert result.exit_code == 1
    first = record["localisation"]["findings"][0]
    assert (first["cause"], first["layer"]) == ("weights", 1)
    assert SPOILT in first["text"]
    assert len(record["localisation"]["layer_errors"]) == 3 + 2, "hidden states were traced"


@pytest.mark.usefixtures("installed")
def test_a_wrong_statement_is_found_by_its_key(out: Path, tmp_path: Path) -> None:
    checkpoint = out.parent / "tiny"
    artifact = export_tiny(checkpoint, "toy", "i12", tmp_path, theta=5000.0)
    result, record = compare(artifact, checkpoint, out)
    assert result.exit_code == 1
    findings = record["localisation"]["findings"]
    assert any(found["key"] == "toy.rope_theta" for found in findings)


@pytest.fixture
def release(installed: None, out: Path, tmp_path: Path) -> Path:
    built = edgeproof("release", "build", out, "--version", "1.0", "--out", tmp_path / "dist")
    assert built.exit_code == 0, built.output
    return tmp_path / "dist" / "llama-0M-1.0"


def test_it_is_released_as_it_says_and_verifies(release: Path) -> None:
    folder = release / "llama-0M-TOY"
    card = (folder / "README.md").read_text("utf-8")
    assert "library_name: toylib" in card
    assert "\nToy exports of " in card
    assert "**Toys**: `toy your-name/llama-0M-TOY/i12.toy`, " in card
    assert read_json(folder / CONFIG)["toys"] == ["i12"]
    assert edgeproof("release", "verify", release).exit_code == 0


def test_without_its_package_nobody_knows_what_a_repository_may_change(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "GROUP", "edgeproof.none")
    verified = edgeproof("release", "verify", release)
    assert verified.exit_code == 1
    (line,) = (line for line in verified.output.splitlines() if CONFIG in line)
    assert "whether it may differ" in line
    assert "unknown format 'toy'" in line


@pytest.mark.usefixtures("installed")
def test_the_demo_lists_it(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "npm"
    packages.mkdir()
    for name in ("NOTICE.txt", "wllama.wasm"):
        (packages / name).touch()
    monkeypatch.setattr("runtimes.demo.build.web_packages", lambda say: packages)
    built = edgeproof("demo", "build", tmp_path / "demo", "--root", out)
    assert built.exit_code == 0, built.output
    assert re.search(r"^toy +i12 .* PASS$", built.output, re.MULTILINE)
    (model,) = read_json(tmp_path / "demo" / "site.json")["models"]
    assert model["files"] == [CONFIG, "i12.toy"]
    assert (tmp_path / "demo" / model["engine"]).is_file()
