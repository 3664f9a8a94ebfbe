"""The demo's page in Chromium, on a tiny model: what it does, says, keeps and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import Artifact
from edgeproof.families import read_config
from runtimes.browser.chromium import without_gpu
from runtimes.demo.build import build
from runtimes.formats import reader_of
from runtimes.registry import open_runtime
from tests.demo_page import DemoPage, opened, playwright_started
from tests.exported import export_tiny
from tests.tiny import config as tiny_config
from tests.tiny import make_checkpoint
from tests.wasm_library import build_library, metadata

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chromium", "web_packages")]

QUESTION = "The capital of France"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    root = tmp_path_factory.mktemp("tiny")
    checkpoint = make_checkpoint(root / "checkpoint")
    made = [
        export_tiny(checkpoint, form, name, root / "tiny")
        for form, name in [("onnx", "fp32"), ("onnx", "fp16"), ("gguf", "q8_0"), ("mlc", "q4f16_1")]
    ]
    index = json.loads((made[-1].path / "tensor-cache.json").read_text())
    facts = metadata(read_config(tiny_config())[0], index, "q4f16_1")
    library = root / "model.wasm"
    library.write_bytes(build_library(facts, heads=4, kv_heads=2, head_dim=16, theta=100000))
    made[-1] = export_tiny(checkpoint, "mlc", "q4f16_1", root / "library", model_lib=library)
    made.append(export_tiny(checkpoint, "onnx", "q8", root / "tiny", embedding="fp16"))
    return made


@pytest.fixture(scope="module")
def folder(artifacts: list[Artifact], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("demo") / "site"
    build(target, [artifact.path for artifact in artifacts], print)
    return target


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with playwright_started() as started:
        yield started


@pytest.fixture(scope="module")
def page(
    playwright: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DemoPage]:
    # Without the headers, so with one thread: two that spin crawl on a busy machine.
    profile = tmp_path_factory.mktemp("profile")
    with opened(playwright, folder, without_gpu(), profile, isolated=False) as demo:
        yield demo


def greedy(artifact: Artifact, messages: list[dict[str, str]], count: int) -> list[int]:
    """What the artifact's usual runtime writes after the rendered chat."""
    template = reader_of(artifact).chat_template(artifact)
    assert template is not None
    runtime = open_runtime(artifact, 1)
    row = runtime.start(runtime.tokenize(template(messages) or ""))
    ids = [int(row.argmax())]
    while len(ids) < count and ids[-1] != 2:
        ids.append(int(runtime.step(ids[-1]).argmax()))
    runtime.close()
    return ids


def test_answers_are_the_exports_and_a_second_turn_knows_the_first(
    page: DemoPage, artifacts: list[Artifact]
) -> None:
    page.load("onnx/fp32")
    assert "ready on WebAssembly, 1 thread." in page.text("status")
    first = page.ask(QUESTION, tokens=8)
    messages = [{"role": "user", "content": QUESTION}]
    assert page.ids() == greedy(artifacts[0], messages, 8)
    page.ask("And 42?", tokens=8)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And 42?"}]
    assert page.ids() == greedy(artifacts[0], messages, 8)
    assert "first token" in page.tab.evaluate("document.getElementById('speed').value")
    page.tab.click("#clear")
    assert page.tab.locator(".message").count() == 0


def test_a_variant_whose_name_says_more_than_its_dtype_answers(page: DemoPage) -> None:
    page.load("onnx/q8-embedding-fp16")
    assert "ready on WebAssembly" in page.text("status")
    page.ask(QUESTION, tokens=3)
    assert page.ids()


def test_stop_ends_the_answer_and_not_the_chat(page: DemoPage) -> None:
    page.load("onnx/fp32")
    page.settings(tokens=200, temperature=0)
    page.tab.fill("#question", QUESTION)
    page.tab.evaluate(
        """() => {
          document.getElementById('ask').requestSubmit();
          setTimeout(() => document.getElementById('stop').click());
        }"""
    )
    page.tab.wait_for_selector("#log[aria-busy='false']")
    assert len(page.ids()) < 100
    assert page.text("problem") == ""
    page.ask(QUESTION, tokens=3)
    assert page.ids()


def test_without_webgpu_the_page_says_so_and_uses_webassembly(page: DemoPage) -> None:
    page.load("onnx/fp16", device="webgpu")
    assert "This browser has no WebGPU: using WebAssembly" in page.text("status")
    page.ask(QUESTION, tokens=3, temperature=0.7)
    assert page.ids()


def pretend_a_gpu(page: DemoPage) -> None:
    """The page finds a GPU; its worker and the engines do not."""
    page.tab.evaluate(
        "navigator.gpu.requestAdapter = async () => ({ features: new Set(['shader-f16']) })"
    )


def test_a_gpu_that_fails_is_said_and_webassembly_used(page: DemoPage) -> None:
    pretend_a_gpu(page)
    page.load("onnx/fp32")
    assert "WebGPU failed (" in page.text("status")
    assert "ready on WebAssembly" in page.text("status")
    page.tab.reload()
    page.ready()


def test_mlc_without_a_gpu_is_refused_in_words(page: DemoPage) -> None:
    page.load("mlc/q4f16_1")
    assert "no WebGPU, and MLC weights run on nothing else" in page.text("problem")
    assert page.tab.is_disabled("#question")


def test_webllm_is_given_the_verified_files_and_asks_for_none(page: DemoPage) -> None:
    """The model library here is one by its structure only: instantiating it fails."""
    pretend_a_gpu(page)
    page.load("mlc/q4f16_1")
    assert "nothing else" not in page.text("problem")
    assert page.text("problem")
    asked = [path.rpartition("/")[2] for path in page.site.requests if "/mlc-q4f16_1-" in path]
    assert sorted(asked) == sorted({*asked})
    assert {"mlc-chat-config.json", "tensor-cache.json"} < {*asked}
    kept = page.tab.evaluate(
        """async () => {
          const cache = await caches.open('webllm/model');
          return (await cache.keys()).map((request) => new URL(request.url).pathname);
        }"""
    )
    assert any(path.endswith("/resolve/main/params_shard_0.bin") for path in kept)
    page.tab.reload()
    page.ready()


def test_a_download_can_be_cancelled_and_done_again(page: DemoPage) -> None:
    forget_models(page)
    held = "**/model.onnx_data"
    page.tab.route(held, lambda route: None)  # it never arrives
    page.tab.check("input[name=model][value$='onnx/fp32']")
    page.tab.click("#load")
    page.tab.wait_for_selector("#cancel:visible")
    page.tab.click("#cancel")
    page.tab.wait_for_selector("#load:enabled")
    assert "Download cancelled" in page.text("status")
    assert page.text("problem") == ""
    page.tab.unroute(held)
    page.load("onnx/fp32")
    assert "ready" in page.text("status")


def test_what_the_cache_has_lost_or_changed_is_downloaded_again(page: DemoPage) -> None:
    page.load("onnx/fp32")
    weights = next(path for path in page.site.requests if path.endswith(".onnx_data"))
    page.site.requests.clear()
    page.load("onnx/fp32")
    assert weights not in page.site.requests
    page.tab.evaluate(
        """async (path) => {
          const cache = await caches.open('edgeproof-models');
          const whole = await (await cache.match(path)).arrayBuffer();
          new Uint8Array(whole)[100] ^= 1;
          await cache.put(path, new Response(whole));
        }""",
        weights,
    )
    page.load("onnx/fp32")
    assert weights in page.site.requests
    assert "ready" in page.text("status")


def forget_models(page: DemoPage) -> None:
    page.tab.evaluate("caches.delete('edgeproof-models')")


def test_gguf_answers(page: DemoPage) -> None:
    page.tab.click("#clear")
    page.load("gguf/q8_0", device="webgpu")
    assert "GGUF runs on WebAssembly here" in page.text("status")
    page.ask(QUESTION, tokens=5)
    assert page.ids()


def test_only_this_origin_is_asked_and_nothing_fails(page: DemoPage) -> None:
    assert page.site.requests
    assert page.elsewhere == []
    assert page.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_and_is_accessible(page: DemoPage, width: int, scheme: str) -> None:
    from axe_playwright_python import sync_playwright as axe

    page.screenshot("tiny", width, scheme)
    root = "document.documentElement"
    assert page.tab.evaluate(f"{root}.scrollWidth") <= page.tab.evaluate(f"{root}.clientWidth")
    report: Any = axe.Axe().run(page.tab).response
    assert report["passes"], "axe checked nothing"
    assert [(item["id"], item["nodes"][0]["html"]) for item in report["violations"]] == []


def damage(folder: Path, name: str) -> None:
    """Change one byte of a file, and of no other name of it."""
    (path,) = folder.glob(f"models/{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_damaged_files_are_named_and_not_used_and_a_good_one_is_kept_for_offline(
    playwright: Any, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "site"
    shutil.copytree(folder, broken)
    damage(broken, "onnx-fp32-*/onnx/model.onnx_data")
    damage(broken, "onnx-fp16-*/edgeproof.json")
    profile = tmp_path / "profile"
    with opened(playwright, broken, without_gpu(), profile) as page:
        for name, file in [("onnx/fp32", "onnx/model.onnx_data"), ("onnx/fp16", "edgeproof.json")]:
            page.load(name)
            assert f"{file} is damaged" in page.text("problem")
            assert page.tab.is_disabled("#question")
            assert page.tab.evaluate("edgeproof.engine") is None
        page.load("gguf/q8_0")
        threads = min(4, page.tab.evaluate("navigator.hardwareConcurrency"))
        assert f"WebAssembly, {threads} thread" in page.text("status")
        page.unplug()
        page.tab.reload()
        page.ready()
        assert "kept on this device" in page.text("models")
        page.load("gguf/q8_0")
        assert page.text("problem") == ""
        page.ask(QUESTION, tokens=3)
        assert page.ids()
        assert page.elsewhere == []
