"""Audits of what lies on the hub, through the real huggingface_hub, against a local one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof.artifact import MANIFEST
from edgeproof.errors import InputError
from runtimes.audit.__main__ import main
from runtimes.audit.hub import OnHub, on_hub
from tests import hub_server, tiny, tiny_gguf
from tests.exported import export_tiny

NEVER_ASKED = ("pytorch_model.bin", "model.safetensors", "modeling.py", "optimizer.pt")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_server.Hub]:
    home = tmp_path_factory.mktemp("home")
    with hub_server.serve() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", running.url)
        patch.setenv("HF_HOME", str(home / "hf"))
        patch.setenv("EDGEPROOF_CACHE", str(home / "edgeproof"))
        patch.setenv("NO_PROXY", "*")
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tiny_gguf.TinyGguf:
    return tiny_gguf.write(tmp_path_factory.mktemp("made"), "Q8_0")


def audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--no-watch"])


def inspected(folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    target = folder / "audit.json"
    done = audit(*arguments, "--inspect", "--json", target)
    assert done.exit_code == 0, done.output
    files: list[dict[str, Any]] = json.loads(target.read_text())["files"]
    return files


def asked(hub: hub_server.Hub, repo: str) -> set[str]:
    """Files of a repository of which somebody has asked for the bytes."""
    gets = (r.path for r in hub.requests if r.method == "GET" and f"/{repo}/resolve/" in r.path)
    return {path.split("/resolve/")[1].partition("/")[2] for path in gets}


def refused(*arguments: str | Path) -> str:
    done = audit(*arguments, "--inspect")
    assert done.exit_code == 2, done.output
    lines = [line for line in done.output.splitlines() if not line.startswith("asking the hub")]
    assert len(lines) == 1, done.output
    return lines[0]


def published(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {**found, **dict.fromkeys(NEVER_ASKED, b"unwanted")}


def test_a_named_file_is_fetched_alone_and_its_hash_recorded(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    data = made.path.read_bytes()
    old = tiny_gguf.write(tmp_path / "old", "Q4_0").path.read_bytes()
    names = ("tiny-Q8_0.gguf", "tiny-Q4_0.gguf")
    repo = hub.add(
        "org/Tiny-GGUF", {"main": dict.fromkeys(names, data), "v1": {names[0]: old, names[1]: old}}
    )
    (found,) = inspected(tmp_path, "org/Tiny-GGUF/tiny-Q8_0.gguf")
    assert asked(hub, "org/Tiny-GGUF") == {"tiny-Q8_0.gguf"}
    assert found["name"] == "tiny-Q8_0"
    assert found["hub"] == {"repo": "org/Tiny-GGUF", "commit": repo.refs["main"]}
    (file,) = found["files"]
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    (before,) = inspected(tmp_path, "hub:org/Tiny-GGUF/tiny-Q8_0.gguf", "--revision", "v1")
    assert before["hub"]["commit"] == repo.refs["v1"]
    assert before["files"][0]["sha256"] == hashlib.sha256(old).hexdigest()
    line = refused("hub:org/Tiny-GGUF")
    assert "holds 2 models" in line
    assert all(name in line for name in names)


def test_the_only_model_of_a_repository_needs_no_name(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    hub.add("org/one", {"main": {"f/a.gguf": made.path.read_bytes(), "README.md": b"x"}})
    (found,) = inspected(tmp_path, "org/one")
    assert found["name"] == "a"
    hub.requests.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        (again,) = inspected(tmp_path, "org/one")
    assert again == found
    assert hub.requests == []


def test_a_graph_comes_with_its_data_and_its_settings_and_runs(
    hub: hub_server.Hub, tmp_path: Path
) -> None:
    model = tiny.make_checkpoint(tmp_path / "model")
    own = export_tiny(model, "onnx", "fp32", tmp_path / "out").path
    files = published(own)
    other = {"onnx/model_q4.onnx": b"another"}
    repo = hub.add("org/Tiny-ONNX", {"main": {**files, **other}})
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": tiny.long_texts(1)[0][:60]}))
    arguments = ("--against", model, "--text", tmp_path / "text.jsonl", "--no-footprint")
    target = tmp_path / "audit.json"
    name = "org/Tiny-ONNX/onnx/model.onnx"
    done = audit(name, *arguments, "--json", target, "--no-html", "--allow-degraded")
    assert done.exit_code == 0, done.output
    said = json.loads(target.read_text())
    assert said["files"][0]["name"] == "Tiny-ONNX/model.onnx"
    (artifact,) = said["parity"]["artifacts"]
    assert artifact["measurement"]["exact_weights"]  # external data was read, not refused
    assert f"from the hub: org/Tiny-ONNX, commit {repo.refs['main']}" in done.output
    (data,) = (name for name in files if "onnx_data" in name)
    wanted = asked(hub, "org/Tiny-ONNX")
    assert {"onnx/model.onnx", data, "config.json", "tokenizer.json"} <= wanted
    assert not wanted & {*NEVER_ASKED, *other}
    assert "model.onnx" not in wanted  # the other graph of its own folder


def test_an_mlc_folder_comes_with_the_shards_of_its_index(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    own = export_tiny(made.checkpoint, "mlc", "q4f16_1", tmp_path / "out").path
    files = published(own)
    hub.add("org/Tiny-MLC", {"main": {**files, "params_shard_99.bin": b"old"}})
    (found,) = inspected(tmp_path, "org/Tiny-MLC")
    assert (found["name"], found["broken"]) == ("Tiny-MLC", None)
    shards = {name for name in files if name.startswith("params_shard")}
    assert shards < asked(hub, "org/Tiny-MLC")
    assert not asked(hub, "org/Tiny-MLC") & {*NEVER_ASKED, "params_shard_99.bin"}


@pytest.fixture(scope="module")
def mlx(made: tiny_gguf.TinyGguf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mlx")
    return export_tiny(made.checkpoint, "mlx", "q4", root, group_size="32").path


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("named", ["org/Tiny-4bit", "org/Tiny-4bit/config.json"])
def test_an_mlx_repository_is_told_by_its_quantization(
    hub: hub_server.Hub, mlx: Path, tmp_path: Path, named: str
) -> None:
    files = {**published(mlx), WEIGHTS: (mlx / WEIGHTS).read_bytes(), "modeling.py": b"evil"}
    # What another audit of this commit has fetched beside it is none of its files.
    repo = hub.add("org/Tiny-4bit", {"main": {**files, "old/x.gguf": b"GGUF"}})
    if named == "org/Tiny-4bit":
        assert "holds 2 models" in refused(named)
        del repo.commits[repo.refs["main"]]["old/x.gguf"]
    (found,) = inspected(tmp_path, named)
    assert (found["format"], found["name"], found["label"]) == ("mlx", "Tiny-4bit", "4-bit")
    assert found["hub"] == {"repo": "org/Tiny-4bit", "commit": repo.refs["main"]}
    assert found["broken"] is None
    shipped = {item["path"]: item["sha256"] for item in found["files"]}
    assert shipped[WEIGHTS] == hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert asked(hub, "org/Tiny-4bit") == set(shipped)
    assert not asked(hub, "org/Tiny-4bit") & {*NEVER_ASKED} - {WEIGHTS}


def test_an_mlx_repository_of_floats_is_told_by_its_tag(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    own = export_tiny(made.checkpoint, "mlx", "bf16", tmp_path / "out").path
    files = {**published(own), WEIGHTS: (own / WEIGHTS).read_bytes()}
    inside = {f"sub/{name}": data for name, data in files.items()}
    hub.add("org/Tiny-bf16", {"main": files}, tags=("safetensors", "mlx"))
    (found,) = inspected(tmp_path, "org/Tiny-bf16")
    assert (found["format"], found["precision"]) == ("mlx", "bf16")
    hub.add("org/inside", {"main": inside}, tags=("mlx",))
    (found,) = inspected(tmp_path, "org/inside/sub")
    assert (found["format"], found["name"]) == ("mlx", "sub")
    hub.add("org/untold", {"main": files})
    assert "the tag mlx" in refused("org/untold")
    assert asked(hub, "org/untold") == {"config.json"}


def test_a_checkpoint_that_is_tagged_mlx_is_none(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in made.checkpoint.iterdir()}
    hub.add("org/not-mlx", {"main": files}, tags=("mlx",))
    assert "nothing that can be audited" in refused("org/not-mlx")


def test_a_folder_stands_for_all_models_in_it(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    data = made.path.read_bytes()
    hub.add("org/folders", {"main": {"x/a.gguf": data, "x/b.gguf": data + b"", "y/c.gguf": data}})
    found = inspected(tmp_path, "org/folders/x")
    assert [item["name"] for item in found] == ["a", "b"]


def test_what_leads_out_of_the_folder_is_never_written(
    hub: hub_server.Hub, made: tiny_gguf.TinyGguf, tmp_path: Path
) -> None:
    data = made.path.read_bytes()
    evil = {"../../evil.gguf": data, "/evil.gguf": data, "a\\..\\evil.gguf": data}
    hub.add("org/evil", {"main": {**evil, "good.gguf": data}})
    (found,) = inspected(tmp_path, "org/evil")
    assert found["name"] == "good"
    assert asked(hub, "org/evil") == {"good.gguf"}
    assert "not a hub id" in refused("hub:org/evil/../../evil.gguf")
    own = export_tiny(made.checkpoint, "mlc", "q4f16_1", tmp_path / "out").path
    files = published(own)
    index = json.loads(files["tensor-cache.json"])
    index["records"][0]["dataPath"] = "../config.json"
    changed = {**files, "tensor-cache.json": json.dumps(index).encode()}
    hub.add("org/evil-index", {"main": changed})
    (found,) = inspected(tmp_path, "org/evil-index")
    assert "outside the folder" in found["broken"]


def test_what_is_not_there_is_one_line(hub: hub_server.Hub, tmp_path: Path) -> None:
    hub.add("org/nothing", {"main": {"config.json": b"{}", "pytorch_model.bin": b"x"}})
    assert "holds nothing that can be audited" in refused("org/nothing")
    assert "is not there" in refused("org/nothing/a.gguf")
    assert "nothing that can be audited" in refused("org/nothing/pytorch_model.bin")
    assert "no revision 'v9'" in refused("org/nothing", "--revision", "v9")
    unknown = refused("org/unknown/x.gguf")
    assert "no such model" in unknown
    assert "bundled" not in unknown
    (tmp_path / "m.gguf").write_bytes(b"<html>")
    assert "none of FILES" in refused(tmp_path / "m.gguf", "--revision", "v1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/repo", OnHub("org/repo")),
        ("hub:org/repo/", OnHub("org/repo")),
        ("org/repo/a/b.gguf", OnHub("org/repo", "a/b.gguf")),
        ("models/missing.gguf", None),
        ("./org/repo", None),
        ("/org/repo", None),
        ("missing.gguf", None),
        ("a b/c", None),
        ("org/repo/../../x", None),
    ],
)
def test_what_may_be_on_the_hub(text: str, expected: OnHub | None) -> None:
    assert on_hub(text) == expected


def test_what_is_here_is_not_looked_for_there(tmp_path: Path) -> None:
    (tmp_path / "org" / "repo").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert on_hub("org/repo") is None
        assert on_hub("hub:org/repo") == OnHub("org/repo")
    with pytest.raises(InputError, match="not a hub id"):
        on_hub("hub:repo")
