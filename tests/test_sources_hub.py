"""Hub ids, through the real huggingface_hub in a process of its own, against a local hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.quantised import read_quantised_record
from export.checkpoint import open_checkpoint
from export.checkpoint.merge_record import read_merge_record
from tests import hub_server, tiny
from tests.lora import make_lora
from tests.quantised import make_quantised
from tests.test_quantised_readers import KINDS

ROOT = Path(__file__).parents[1]
# huggingface_hub reads its settings when it is imported, so it runs in a child; one child serves
# many requests, since the import is what takes time.
CHILD = """
import dataclasses, json, sys
from edgeproof.errors import InputError
from export.sources import hub, resolve
from export.sources.adapters import AdapterRequest
hub.PAUSES_S = (0.02, 0.02, 0.02)
for line in sys.stdin:
    try:
        model, revision, *adapters = json.loads(line)
        merged = [AdapterRequest(adapter) for adapter in adapters]
        answer = dataclasses.asdict(resolve(model, revision, merged))
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, default=str), flush=True)
"""


class Client:
    """`resolve` in a child process with its own hub settings and cache."""

    def __init__(self, cache: Path, endpoint: str, **settings: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        env |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "NO_PROXY": "*", **settings}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def resolve(self, model: str, revision: str | None = None, *adapters: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([model, revision, *adapters]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def error(self, model: str, revision: str | None = None) -> str:
        message = str(self.resolve(model, revision)["error"])
        assert "\n" not in message
        assert message.startswith(model)
        return message

    def close(self) -> str:
        """End the child; returns what it wrote to stderr."""
        return self._process.communicate(timeout=20)[1]


@pytest.fixture(scope="module")
def hub() -> Iterator[hub_server.Hub]:
    with hub_server.serve() as running:
        yield running


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def client(hub: hub_server.Hub, cache: Path) -> Iterator[Client]:
    running = Client(cache, hub.url)
    yield running
    noise = running.close()
    assert noise == "", "the library's own warnings reached the user"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.make_checkpoint(tmp_path_factory.mktemp("tiny") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_revisions_give_two_checkpoints_named_by_their_commits(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes], tmp_path: Path
) -> None:
    other = tiny.make_checkpoint(tmp_path / "other", seed=1)
    newer = {path.name: path.read_bytes() for path in other.iterdir()}
    repo = hub.add("org/Two-Revisions", {"main": newer, "v0.1": files})
    first = client.resolve("org/Two-Revisions", "v0.1")
    second = client.resolve("org/Two-Revisions")
    assert (first["revision"], second["revision"]) == (repo.refs["v0.1"], repo.refs["main"])
    assert (first["label"], second["label"]) == ("Two-Revisions@v0.1", "Two-Revisions")
    assert first["name"] == second["name"] == "Two-Revisions"
    assert first["repo"] == second["repo"] == "org/Two-Revisions"
    for source, published in ((first, files), (second, newer)):
        folder = Path(source["path"])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == published
        open_checkpoint(folder)


def test_shards_arrive_and_no_pickle_or_second_copy_is_ever_asked_for(
    hub: hub_server.Hub, client: Client, tmp_path: Path
) -> None:
    folder = tiny.make_checkpoint(tmp_path / "sharded", shards=2)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["additional_chat_templates/tool_use.jinja"] = b"{{ tools }}"
    unwanted = ("pytorch_model.bin", "consolidated.safetensors", "onnx/model.safetensors", "x.py")
    hub.add("org/sharded", {"main": {**files, **dict.fromkeys(unwanted, b"unwanted")}})
    path = Path(client.resolve("org/sharded")["path"])
    assert "additional_chat_templates/tool_use.jinja" in open_checkpoint(path).tokenizer_files
    asked = [request.path for request in hub.requests if "/org/sharded/resolve/" in request.path]
    assert len(asked) >= len(files)
    assert not [path for path in asked if path.endswith(unwanted)]


def test_a_dropped_connection_resumes_where_it_broke(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes]
) -> None:
    weights = os.urandom(24 << 20)  # more than one of the library's 10 MiB chunks
    repo = hub.add("org/dropped", {"main": {**files, "model.safetensors": weights}})
    repo.cut_after["model.safetensors"] = 15 << 20
    path = Path(client.resolve("org/dropped")["path"])
    assert (path / "model.safetensors").read_bytes() == weights
    ranges = [r.range for r in hub.requests if r.path.startswith("/org/dropped") and r.range]
    assert ranges == [f"bytes={10 << 20}-"]


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes]
) -> None:
    repo = hub.add("org/busy", {"main": files}, unavailable=3)
    open_checkpoint(Path(client.resolve("org/busy")["path"]))
    assert repo.unavailable == 0


def test_a_hub_that_stays_down_is_named_with_its_status(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes]
) -> None:
    hub.add("org/down", {"main": files}, unavailable=1000)
    message = client.error("org/down")
    assert "503" in message
    assert "--model bundled" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"status": 403, "error_code": "GatedRepo"}, ("gated", "hf auth login")),
        ({"status": 401, "status_for_info": True}, ("access denied", "401", "hf auth login")),
        ({"status": 403}, ("access denied", "403", "hf auth login")),
    ],
)
def test_a_repository_without_access_says_how_to_get_it(
    hub: hub_server.Hub,
    client: Client,
    files: dict[str, bytes],
    options: dict[str, Any],
    expected: tuple[str, ...],
) -> None:
    name = f"org/closed-{options['status']}-{len(options)}"
    hub.add(name, {"main": files}, **options)
    message = client.error(name)
    assert all(part in message for part in expected), message


def test_an_unknown_repository_and_an_unknown_revision_are_told_apart(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes]
) -> None:
    hub.add("org/known", {"main": files})
    assert "no such model" in client.error("org/unknown")
    message = client.error("org/known", "v9")
    assert "no revision 'v9'" in message
    assert "/tree/main" in message


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pytorch_model.bin", "pickled weights (pytorch_model.bin)"),
        ("model.Q4_0.gguf", "download model.Q4_0.gguf"),
        ("notes.txt", "no model.safetensors"),
    ],
)
def test_a_repository_without_safetensors_is_refused_and_nothing_of_it_loaded(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes], file: str, expected: str
) -> None:
    name = f"org/only-{file.replace('.', '-')}"
    kept = {key: data for key, data in files.items() if key != "model.safetensors"}
    hub.add(name, {"main": {**kept, file: b"x"}})
    assert expected in client.error(name)
    assert not [r for r in hub.requests if r.path.endswith(f"{name}/resolve/main/{file}")]


def test_an_adapter_of_the_hub_is_merged_and_named_by_both(
    hub: hub_server.Hub, client: Client, files: dict[str, bytes], tmp_path: Path
) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base, base_model_name_or_path="org/Base-1M")
    published = {path.name: path.read_bytes() for path in lora.iterdir()}
    hub.add("org/Base-1M", {"main": files})
    repo = hub.add("org/Lora", {"main": {**published, "optimizer.pt": b"unwanted"}})
    hub.add("org/Pickled", {"main": {"adapter_config.json": b"{}", "adapter_model.bin": b"x"}})
    source = client.resolve("org/Base-1M", None, "org/Lora")
    assert (source["label"], source["name"]) == ("Base-1M+Lora", "Base-1M-Lora")
    assert (source["repo"], source["revision"]) == (None, None)
    record = read_merge_record(Path(source["path"]))
    assert record is not None
    assert record.base.repo == "org/Base-1M"
    (adapter,) = record.adapters
    assert (adapter.repo, adapter.revision) == ("org/Lora", repo.refs["main"])
    assert not [request for request in hub.requests if request.path.endswith("optimizer.pt")]
    assert "give --model BASE --adapter org/Lora" in client.error("org/Lora")
    assert client.resolve(str(lora))["label"] == "Base-1M+lora"
    pickled = client.resolve("org/Base-1M", None, "org/Pickled")["error"]
    assert "pickled weights (adapter_model.bin)" in pickled


def test_a_quantised_model_of_the_hub_keeps_its_name_and_commit(
    hub: hub_server.Hub, cache: Path, tmp_path: Path
) -> None:
    settings, store, _ = KINDS["awq"]
    folder = make_quantised(tmp_path / "model", settings, store, num_hidden_layers=1, shards=2)
    published = {path.name: path.read_bytes() for path in folder.iterdir()}
    repo = hub.add("org/Model-1M-AWQ", {"main": published})
    client = Client(cache, hub.url)
    source = client.resolve("org/Model-1M-AWQ")
    assert "7 quantised weights (AWQ (gemm), 4 bits, groups of 32)" in client.close()
    assert (source["label"], source["repo"]) == ("Model-1M-AWQ", "org/Model-1M-AWQ")
    assert source["revision"] == repo.refs["main"]
    record = read_quantised_record(Path(source["path"]))
    assert record is not None
    assert record.matrices == 7


def test_offline_uses_the_cache_and_says_so_where_it_is_empty(
    hub: hub_server.Hub, client: Client, cache: Path, files: dict[str, bytes]
) -> None:
    hub.add("org/cached", {"main": files, "v0.1": files})
    online = [client.resolve("org/cached", revision) for revision in (None, "v0.1")]
    before = len(hub.requests)
    offline = Client(cache, hub.url, HF_HUB_OFFLINE="1")
    assert [offline.resolve("org/cached", revision) for revision in (None, "v0.1")] == online
    message = offline.error("org/never-seen")
    assert "HF_HUB_OFFLINE" in message
    assert "--model bundled" in message
    assert offline.close() == ""
    assert len(hub.requests) == before


def test_without_a_network_the_error_names_the_bundled_model(tmp_path: Path) -> None:
    unreachable = Client(tmp_path, "http://127.0.0.1:9")  # the discard port: nothing listens
    message = unreachable.error("org/name")
    assert "check the network" in message
    assert "--model bundled" in message
    assert unreachable.close() == ""


@pytest.mark.parametrize("model", ["org/na--me", "org/name.git"])
def test_an_id_that_the_hub_would_never_give_is_refused_in_one_line(
    client: Client, model: str
) -> None:
    assert "check the id" in client.error(model)
