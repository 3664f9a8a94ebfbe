"""The local server and the search for Chromium: what pages get, and what people are told."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from runtimes.browser.chromium import find_chromium, with_gpu, without_gpu
from runtimes.browser.page import BrowserPage
from runtimes.browser.server import TOKEN, Site, serving


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(range(100)))
    (tmp_path / "secret").write_text("outside")
    return Site({"/": tmp_path / "page", "/m/": tmp_path / "model"})


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    with serving(site) as url:
        yield url


def get(url: str, **headers: str) -> HTTPResponse:
    response: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers))
    return response


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=98-500", (98, 100)),
    ],
)
def test_parts_of_files(address: str, asked: str, span: tuple[int, int]) -> None:
    response = get(f"{address}/m/weights.bin", Range=asked)
    assert response.status == 206
    assert response.read() == bytes(range(*span))
    assert response.headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/100"


def test_pages_may_use_threads_unless_the_site_says_no(address: str, site: Site) -> None:
    asked = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    assert asked.items() <= dict(get(address).headers).items()
    site.isolated = False
    assert not asked.keys() & dict(get(address).headers).keys()


def test_files_are_found_as_the_hub_names_them(address: str, site: Site) -> None:
    assert get(f"{address}/m/resolve/main/weights.bin").read() == bytes(range(100))
    assert site.requests == ["/m/weights.bin"]


@pytest.mark.parametrize("path", ["/../secret", "/m/%2e%2e/secret", "/m//etc/passwd", "/missing"])
def test_nothing_outside_the_folders_is_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address + path)


def post(address: str, site: Site, data: bytes, **headers: str) -> int:
    """The status of a post as our own page sends it, but for some headers."""
    own = {
        "Origin": address,
        TOKEN: site.token,
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    request = urllib.request.Request(f"{address}/posted", data, own)
    try:
        return int(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_what_a_page_posts_arrives(address: str, site: Site) -> None:
    site.largest_post = 6
    assert post(address, site, b"logits") == 204
    assert site.posted.get_nowait() == b"logits"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "rebound.example"}, 403),
        ({"X_Edgeproof_Token": "guessed"}, 403),
        ({"X_Edgeproof_Token": "ü"}, 403),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "7"}, 413),
        ({"Content_Length": "9" * 12}, 413),
    ],
)
def test_other_posts_are_refused_unread(
    address: str, site: Site, headers: dict[str, str], status: int
) -> None:
    site.largest_post = 6
    assert post(address, site, b"logits", **headers) == status
    assert site.posted.empty()
    assert get(address).status == 200  # and the server goes on


def test_a_site_takes_no_posts_unless_it_says_so(address: str, site: Site) -> None:
    assert post(address, site, b"!") == 413
    assert post(address, site, b"!", Origin="") == 403
    assert site.posted.empty()


def test_a_wrong_or_missing_chromium_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEPROOF_CHROMIUM", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"EDGEPROOF_CHROMIUM=.*no program"):
        find_chromium()
    monkeypatch.delenv("EDGEPROOF_CHROMIUM")
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; install it \(Debian: apt-get install"):
        find_chromium()


@pytest.mark.parametrize(("user", "sandboxed"), [(0, False), (1000, True)])
def test_only_roots_chromium_has_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: int, sandboxed: bool
) -> None:
    """What Playwright then hands over is that switch, or not."""
    seen = tmp_path / "seen"
    chromium = tmp_path / "chromium"
    chromium.write_text(
        f'#!/bin/sh\necho "$@" > "{seen}"\necho "FATAL: No usable sandbox! …" >&2\nexit 1\n'
    )
    chromium.chmod(0o755)
    monkeypatch.setenv("EDGEPROOF_CHROMIUM", str(chromium))
    monkeypatch.setattr("os.geteuid", lambda: user)
    with pytest.raises(InputError, match="allow user namespaces") as caught:
        BrowserPage(without_gpu(), "about:blank")
    assert "\n" not in str(caught.value)
    assert ("--no-sandbox" in seen.read_text().split()) is not sandboxed


def test_without_a_compiler_there_is_webgpu_without_float16_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chromium = tmp_path / "chromium"
    for name in ("chromium", "libvk_swiftshader.so", "vk_swiftshader_icd.json"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("EDGEPROOF_CHROMIUM", str(chromium))
    monkeypatch.setenv("EDGEPROOF_VULKAN", "lavapipe")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("runtimes.browser.chromium.driver_folder", lambda: tmp_path)
    browser = with_gpu()
    assert browser.executable == chromium
    assert browser.gpu == "SwiftShader without shader-f16"
    assert "no C compiler" in caplog.text
    assert "without float16" in caplog.text
    assert (tmp_path / "libvk_swiftshader.so").read_bytes() == b""  # the installed one is as it was
