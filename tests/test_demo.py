"""The demo's folder: what is built, from what, and how large it is."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeproof.artifact import MANIFEST, Artifact
from edgeproof.errors import InputError
from edgeproof.files.lock import exclusive
from edgeproof.verdicts import REPORT, Verdict
from runtimes.demo.__main__ import main
from runtimes.demo.build import SITE, build
from runtimes.formats import OURS, Engine
from runtimes.parity.report.json import write_json
from tests.demo_page import PACKAGES
from tests.exported import export_tiny
from tests.parity_results import entry, measurement, result
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
OWN_LINES = 1500
FIRST_LOAD = 7.5e6  # bytes, compressed, without weights


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    root = tmp_path_factory.mktemp("tiny")
    checkpoint = make_checkpoint(root / "checkpoint")
    return [
        export_tiny(checkpoint, form, name, root / "tiny")
        for form, name in [("onnx", "fp32"), ("onnx", "fp16"), ("gguf", "q8_0")]
    ]


@pytest.fixture(scope="module")
def folder(
    web_packages: Path, artifacts: list[Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp("demo") / "site"
    fp32, fp16, third = artifacts
    other_bytes = replace(fp16.manifest, outputs=fp32.manifest.outputs)
    passed = entry("fp32", Verdict.PASS, measured=measurement())
    broken = entry("fp16", Verdict.FAIL, reasons=("broken",))
    compared = result(
        replace(passed, artifact=fp32),
        replace(broken, artifact=replace(fp16, manifest=other_bytes, sha256="0" * 64)),
    )
    write_json(fp32.path.parents[1] / REPORT, compared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtimes.demo.build.web_packages", lambda say: web_packages)
        build(target, [artifact.path for artifact in (fp16, third, fp32)], print)
    return target


def test_the_site_says_what_each_export_is(folder: Path, artifacts: list[Artifact]) -> None:
    models = json.loads((folder / SITE).read_text())["models"]
    # The second was compared with other bytes of the same recipe, the third not at all.
    # What is recommended comes first; of other bytes nothing is known, of the others neither.
    assert [model["verdict"] for model in models] == ["PASS", None, None]
    assert [bool(model["ships_for"]) for model in models] == [True, False, False]
    for model, artifact in zip(models, artifacts, strict=True):
        sizes = {item.path: item.bytes for item in artifact.manifest.outputs}
        assert model["bytes"] == sum(sizes[name] for name in model["files"])
        assert model["bits"] == artifact.manifest.effective_bpw
        assert (folder / model["engine"]).is_file()
        for name in ["edgeproof.json", *model["files"]]:
            assert (folder / model["folder"] / name).read_bytes() == (
                artifact.path / name
            ).read_bytes()
    assert "genai_config.json" not in models[0]["files"]


def test_own_code_and_first_load_stay_small(folder: Path) -> None:
    own = [
        path
        for path in (ROOT / "runtimes" / "demo").rglob("*")
        if path.suffix in (".py", ".js", ".html", ".css")
    ]
    assert len(own) >= 10
    assert sum(len(path.read_text().splitlines()) for path in own) <= OWN_LINES
    page = [path for path in folder.iterdir() if path.is_file()]
    engines = [reader.engine for reader in OURS.values() if reader.engine is not None]
    assert len(engines) >= 3
    for engine in engines:
        files = page + [PACKAGES / name for name in engine.scripts]
        assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) <= FIRST_LOAD


def test_licences_of_the_engines_are_there(folder: Path) -> None:
    notice = (folder / "NOTICE.txt").read_text()
    for name in (
        "@huggingface/transformers",
        "onnxruntime-web",
        "@wllama/wllama",
        "@mlc-ai/web-llm",
    ):
        assert name in notice
    assert "Apache License" in notice
    assert "MIT License" in notice


def test_what_cannot_be_shown_is_refused(artifacts: list[Artifact], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(InputError, match="not empty and not a demo"):
        build(tmp_path / "photos", [artifacts[0].path], print)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    mlc = export_tiny(checkpoint, "mlc", "q4f16_1", tmp_path)
    with pytest.raises(InputError, match="WebLLM needs a model library"):
        build(tmp_path / "demo", [mlc.path], print)
    result = CliRunner().invoke(main, ["build", str(tmp_path / "demo"), "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert "run.json: missing" in result.output
    assert CliRunner().invoke(main, ["serve", str(tmp_path)]).exit_code == 2


def test_a_reader_brings_a_script_and_only_one_that_is_there_and_new(
    artifacts: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / "NOTICE.txt").touch()
    monkeypatch.setattr("runtimes.demo.build.web_packages", lambda say: tmp_path / "npm")
    script, taken = tmp_path / "engine-own.js", tmp_path / "app.js"
    script.write_text("export class Engine {}\n")
    taken.touch()

    def shown(target: Path, module: str, *brought: Path) -> Any:
        engine = Engine((module,), brought, (), ("*.gguf",), requirement=None)
        monkeypatch.setitem(OURS, "gguf", replace(OURS["gguf"], engine=engine))
        build(target, [artifacts[2].path], print)
        return json.loads((target / SITE).read_text())

    site = shown(tmp_path / "demo", script.name, script)
    assert site["engines"] == [site["models"][0]["engine"]] == [script.name]
    assert (tmp_path / "demo" / script.name).read_bytes() == script.read_bytes()
    for module, brought, reason in [
        ("engine-none.js", (), "no script engine-none.js"),
        ("app.js", (taken,), "app.js: the demo has another file of that name"),
        ("x.js", (tmp_path / "x.js",), "x.js: cannot be read"),
    ]:
        with pytest.raises(InputError, match=reason):
            shown(tmp_path / "refused", module, *brought)
        assert not (tmp_path / "refused").exists()


def fake_packages(folder: Path) -> Path:
    engine = OURS["gguf"].engine
    assert engine is not None
    for script in (*engine.scripts, "NOTICE.txt"):
        (folder / script).touch()
    return folder


@pytest.mark.parametrize("name", ["edgeproof.json", "model.gguf"])
def test_what_changes_after_it_was_looked_at_gets_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fetching the engines takes minutes, in which an export may write the artifact anew."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(checkpoint, "gguf", "f32", tmp_path)
    (weights,) = artifact.path.glob("*.gguf")
    file = artifact.path / (name if name == MANIFEST else weights.name)

    def fetch(say: Callable[[str], None]) -> Path:
        file.write_bytes(file.read_bytes() + b" ")
        return fake_packages(tmp_path)

    monkeypatch.setattr("runtimes.demo.build.web_packages", fetch)
    with pytest.raises(InputError, match=f"{file.name}: changed while it was copied"):
        build(tmp_path / "demo", [artifact.path], print)
    assert not (tmp_path / "demo").exists()


def test_a_second_build_waits_for_the_first(
    artifacts: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.demo.build.web_packages", lambda say: fake_packages(tmp_path))
    target = tmp_path / "demo"
    second = threading.Thread(target=build, args=(target, [artifacts[2].path], print))
    with exclusive(target):
        second.start()
        second.join(1)
        assert second.is_alive()
        assert not target.exists()
    second.join()
    assert (target / SITE).is_file()


def test_the_commands_build_a_folder_and_serve_it(
    folder: Path, artifacts: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.demo.build.web_packages", lambda say: PACKAGES)
    target = tmp_path / "demo"
    result = CliRunner().invoke(main, ["build", str(target), str(artifacts[0].path)])
    assert result.exit_code == 0, result.output
    assert "onnx fp32" in result.output
    assert "PASS" in result.output  # of the report beside the artifact
    serve = [sys.executable, "-m", "runtimes.demo", "serve", str(target), "--port", "0"]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        with urllib.request.urlopen(address + SITE) as response:
            assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert len(json.load(response)["models"]) == 1
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
