"""Whatever changes in a release, verify names the file; the documents keep to their standards."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.release.record import read_record, record_bytes
from export.release.verify import problems
from tests.publishing import run


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys, made as the help text says."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private]
        subprocess.run(make, check=True, capture_output=True)
        make = ["openssl", "ec", "-in", private, "-pubout", "-out", public]
        subprocess.run(make, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def built(exported: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release that no test may change."""
    folder = tmp_path_factory.mktemp("release")
    assert run("build", exported, "--version", "1.0", "--out", folder / "dist").exit_code == 0
    (release,) = (folder / "dist").iterdir()
    assert run("sign", release, "--key", keys / "key.pem").exit_code == 0
    return release


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    """A signed release that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "release"))


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_an_unchanged_release_verifies(built: Path, keys: Path) -> None:
    done = run("verify", built, "--key", keys / "key.pub")
    assert (done.exit_code, done.output) == (
        0,
        f"{built}: as it was built; its signature is right\n",
    )
    done = run("verify", built)
    assert done.exit_code == 0
    assert "was not checked" in done.output


def test_another_key_is_refused(built: Path, keys: Path) -> None:
    done = run("verify", built, "--key", keys / "other.pub")
    assert done.exit_code == 1
    assert "model.sig" in done.output


def test_keys_that_are_none_are_bad_input(built: Path, keys: Path, release: Path) -> None:
    assert run("verify", built, "--key", keys / "key.pem").exit_code == 2
    assert run("verify", built, "--key", keys / "absent.pub").exit_code == 2
    assert run("sign", release, "--key", keys / "key.pub").exit_code == 2
    assert run("sign", release).exit_code == 2
    rsa = keys / "rsa.pem"
    subprocess.run(["openssl", "genrsa", "-out", rsa], check=True, capture_output=True)
    assert run("sign", release, "--key", rsa).exit_code == 2


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipping_any_bit_of_any_file_names_the_file(
    data: st.DataObject, built: Path, keys: Path, tmp_path: Path
) -> None:
    files = sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(files))
    release = tmp_path / "release"
    if not release.exists():
        shutil.copytree(built, release, copy_function=shutil.copyfile)
    path = release / name
    position = data.draw(st.integers(0, path.stat().st_size - 1))
    flip(path, position, data.draw(st.integers(0, 7)))
    try:
        found = list(problems(release))
        assert found
        assert all(name.as_posix() in line for line in found), found
    finally:
        shutil.copyfile(built / name, path)


@pytest.mark.parametrize("name", ["RELEASE_NOTES.md", "parity.html", "llama-0M-GGUF/README.md"])
def test_the_signature_alone_guards_every_file(
    built: Path, keys: Path, release: Path, name: str
) -> None:
    """Someone who changes a file and every checksum of it still needs the key."""
    path = release / name
    path.write_text(path.read_text("utf-8") + "Trust me.\n")
    record = read_record(release)
    (entry,) = (item for item in record["files"] if item["path"] == name)
    entry["bytes"] = path.stat().st_size
    (release / "manifest.json").write_bytes(record_bytes(record))
    write_checksums_anew(release, built, name)
    assert run("verify", release).exit_code == 0
    done = run("verify", release, "--key", keys / "key.pub")
    assert done.exit_code == 1
    assert "model.sig: Signature mismatch" in done.output
    assert name in done.output


def write_checksums_anew(release: Path, built: Path, name: str) -> None:
    """In every document, as if the release had been built with this file as it is."""
    stale = {digest(built / name): digest(release / name)}
    for document in ("sbom.cdx.json", "manifest.json", "provenance.intoto.json", "SHA256SUMS"):
        text = (release / document).read_text("utf-8")
        for old, new in stale.items():
            text = text.replace(old, new)
        (release / document).write_text(text)
        stale[digest(built / document)] = digest(release / document)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_extra_and_linked_files_are_named(release: Path) -> None:
    (release / "parity.html").unlink()
    (release / "extra").write_text("x")
    card = next(release.glob("*-GGUF/README.md"))
    target = release.parent / "elsewhere"
    shutil.move(card, target)
    card.symlink_to(target)
    lines = "\n".join(problems(release))
    assert "parity.html: missing" in lines
    assert "extra: not part of the release" in lines
    assert "README.md: a symbolic link" in lines


def linked(path: Path) -> str:
    """Move something out of the release and link to it."""
    target = path.parents[2] / f"elsewhere-{path.name}"
    shutil.move(path, target)
    path.symlink_to(target)
    return "a symbolic link"


def linked_folder(release: Path) -> tuple[str, str]:
    return "archives", linked(release / "archives")


def linked_signature(release: Path) -> tuple[str, str]:
    return "model.sig", linked(release / "model.sig")


def extra_link(release: Path) -> tuple[str, str]:
    (release / "more").symlink_to("/")
    return "more", "a symbolic link"


def empty_folders(release: Path) -> tuple[str, str]:
    (release / "a" / "b").mkdir(parents=True)
    return "a/b", "an empty folder"


def pipe(release: Path) -> tuple[str, str]:
    os.mkfifo(release / "pipe")
    return "pipe", "no plain file"


@pytest.mark.parametrize(
    "change", [linked_folder, linked_signature, extra_link, empty_folders, pipe]
)
def test_what_is_no_file_is_named_without_a_key(
    release: Path, change: Callable[[Path], tuple[str, str]]
) -> None:
    name, why = change(release)
    assert any(line.startswith(f"{name}: {why}") for line in problems(release))


def test_a_signing_that_was_interrupted_is_repeated(release: Path, keys: Path) -> None:
    (release / "model.sig.sha256").unlink()
    assert run("sign", release, "--key", keys / "other.pem").exit_code == 0
    assert run("verify", release, "--key", keys / "other.pub").exit_code == 0


def test_a_lost_signature_is_named_where_one_is_asked_for(release: Path, keys: Path) -> None:
    (release / "model.sig").unlink()
    assert run("verify", release).exit_code == 1
    (release / "model.sig.sha256").unlink()
    assert run("verify", release).exit_code == 0
    done = run("verify", release, "--key", keys / "key.pub")
    assert done.exit_code == 1
    assert "model.sig: missing" in done.output


def test_a_manifest_that_flatters_is_found(built: Path, release: Path) -> None:
    """Checksums made again over a verdict that parity.json does not have."""
    record = read_record(release)
    (degraded,) = (item for item in record["variants"] if item["verdict"] == "DEGRADED")
    degraded["verdict"] = "PASS"
    (release / "manifest.json").write_bytes(record_bytes(record))
    write_checksums_anew(release, built, "manifest.json")
    (line, *_) = problems(release)
    assert line == "manifest.json: gguf q4_0 did not come out like that, says parity.json"


@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json", "parity.json", "sbom.cdx.json"])
def test_any_garbage_is_a_finding_not_a_crash(release: Path, name: str) -> None:
    rng = random.Random(3)
    for content in (b"", b"\xff\xfe", b"[]", b"{}", rng.randbytes(100)):
        (release / name).write_bytes(content)
        assert any(name in line for line in problems(release)), content


def test_what_is_no_release_is_bad_input(tmp_path: Path) -> None:
    done = run("verify", tmp_path)
    assert done.exit_code == 2
    assert "is this a release?" in done.output


def test_the_bill_of_materials_keeps_to_cyclonedxs_schema(built: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (built / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    raw = json.loads(text)
    model = raw["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    (checkpoint,) = raw["components"]
    weights = [item for item in checkpoint["components"] if item["name"] == "model.safetensors"]
    (hashed,) = weights[0]["hashes"]
    assert hashed["alg"] == "SHA-256"
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"mean_kl", "top1", "acceptance"} <= {item["type"] for item in metrics}


def test_provenance_names_inputs_and_the_command(built: Path) -> None:
    raw = json.loads((built / "provenance.intoto.json").read_text("utf-8"))
    assert raw["_type"] == "https://in-toto.io/Statement/v1"
    definition = raw["predicate"]["buildDefinition"]
    names = {item["name"] for item in definition["resolvedDependencies"]}
    assert {"checkpoint/model.safetensors", "checkpoint/README.md", "parity.json"} <= names
    assert "artifacts/gguf/q8_0/edgeproof.json" in names
    command = definition["externalParameters"]["command"]
    assert command[:5] == ["python", "-m", "export.release", "build", "ROOT"]
    assert command[5:7] == ["--version", "1.0"]


def test_the_official_tool_verifies_our_signature(built: Path, keys: Path) -> None:
    """`model_signing`'s own command line, not our use of its library."""
    import sys

    command = [sys.executable, "-m", "model_signing", "verify", "key", str(built)]
    command += ["--signature", str(built / "model.sig"), "--public_key", str(keys / "key.pub")]
    command += ["--ignore-paths", str(built / "model.sig.sha256")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
