"""What an audit leaves for others: a badge for a model card, and a receipt that can be signed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof.files.hashing import OutputFile, file_sha256
from edgeproof.verdicts import RECEIPT, REPORT, DamagedEntry, Verdict, read_receipt, receipt_bytes
from runtimes.audit.__main__ import main as audit_main
from runtimes.audit.badge import COLOURS, Badge, svg
from runtimes.audit.day import EPOCH, day
from runtimes.audit.description import sha256_of_all
from runtimes.parity import run as parity_run
from runtimes.parity import statistics, tokenizer
from runtimes.parity.measure import Measurement
from tests import tiny, tiny_gguf
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.parity_results import HOSTILE
from tests.publishing import run as release

TEXT = tiny.long_texts(1)[0][:80]
DAY = "2026-11-29"
BADGE = Badge("model-Q4_K_M", "org/Model", "ab" * 32, 1, DAY, Verdict.PASS, "0.048", "93.1 %", "x")
NO_SUCH = DamagedEntry("another.gguf", "cut off", (), None)


@dataclass(frozen=True)
class Left:
    """A file, and what its audit left beside it."""

    file: Path
    folder: Path
    model: Path
    cache: str

    @property
    def receipt(self) -> Path:
        return self.folder / "receipt"

    @property
    def badge(self) -> str:
        return (self.folder / "badge.svg").read_text("utf-8")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("left")
    made = tiny_gguf.write(folder / "made", "Q8_0")
    (folder / "text.jsonl").write_text(json.dumps({"text": TEXT}))
    outputs = ("badge", folder / "badge.svg"), ("receipt", folder / "receipt")
    cache = new_cache(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 50)
        patch.setattr(statistics, "RESAMPLES", 50)
        patch.setenv("EDGEPROOF_CACHE", cache)
        patch.setenv(EPOCH, "1795910400")
        done = audit(
            made.path, "--against", made.checkpoint, "--text", folder / "text.jsonl",
            "--no-footprint", "--allow-degraded",
            *(word for name, path in outputs for word in (f"--{name}", path)),
        )  # fmt: skip
    assert "receipt: " in done.output, done.output
    return Left(made.path, folder, made.checkpoint, cache)


def test_what_was_found_before_an_interruption_is_kept(
    left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(left.file, tmp_path / "other-Q8_0.gguf"))
    monkeypatch.setattr(tokenizer, "COUNT", 50)
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    monkeypatch.setenv("EDGEPROOF_CACHE", left.cache)
    assert not [*Path(left.cache).glob("comparisons/*")]  # of what was done with all its files
    measure, begun = parity_run.measure, []

    def interrupted(*arguments: Any) -> Measurement:
        begun.append(arguments)
        if len(begun) > 1:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(parity_run, "measure", interrupted)
    text = left.folder / "text.jsonl"
    for _ in range(2):
        done = audit(left.file, other, "--against", left.model, "--text", text, "--no-footprint")
        assert done.exit_code == 130, done.output
        assert "found of each file that is done are kept; the same command goes on" in done.output
    assert len(begun) == 3  # the first file once, the other twice


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "key.pem", folder / "key.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private]
    subprocess.run(make, check=True, capture_output=True)
    make = ["openssl", "ec", "-in", private, "-pubout", "-out", public]
    subprocess.run(make, check=True, capture_output=True)
    return folder


@pytest.fixture
def signed(left: Left, key: Path, tmp_path: Path) -> Path:
    """A signed receipt that a test may change."""
    folder = Path(shutil.copytree(left.receipt, tmp_path / "receipt"))
    done = release("sign", folder, "--key", key / "key.pem")
    assert done.exit_code == 0, done.output
    return folder


def audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit_main, [*map(str, arguments), "--no-watch"])


def texts(picture: str) -> list[str]:
    return [(item.text or "") for item in ET.fromstring(picture) if item.text]


def test_the_badge_says_what_was_found_and_compared(left: Left) -> None:
    found = json.loads((left.receipt / REPORT).read_text())
    (artifact,) = found["artifacts"]
    title, verdict, figures, said = (text.strip() for text in texts(left.badge) if text.strip())
    assert verdict == artifact["verdict"]
    top1 = 100 * artifact["measurement"]["estimates"]["top1"]["value"]
    assert f"top-1 {top1:.1f} %" in figures
    assert said == f"compared with {found['model']} · {DAY} · edgeproof"
    assert artifact["files"][0]["sha256"] in title
    assert f"on {artifact['measurement']['positions']:,} positions" in title
    assert "certified" not in left.badge
    assert str(left.folder) not in left.badge


@pytest.mark.parametrize("verdict", Verdict)
def test_a_badge_is_small_and_the_same_each_time(verdict: Verdict) -> None:
    badge = replace(BADGE, verdict=verdict)
    picture = svg(badge)
    assert picture == svg(badge)
    assert len(picture) < 2000
    assert COLOURS[verdict] in picture


def test_hostile_names_stay_texts_and_long_ones_are_cut() -> None:
    picture = svg(replace(BADGE, file=HOSTILE, model=HOSTILE + "x" * 500 + "\ud800", more=HOSTILE))
    root = ET.fromstring(picture)
    assert {item.tag.rpartition("}")[2] for item in root.iter()} == {
        "svg", "title", "rect", "path", "text",
    }  # fmt: skip
    assert int(root.get("width", "0")) < 600
    assert HOSTILE.replace("\x1b", "\ufffd") in (root[0].text or "")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no coreutils here")
def test_the_hash_of_several_files_is_what_sha256sum_gives(tmp_path: Path) -> None:
    for name in ("b.bin", "B.bin", "a-00002", "ü", "back\\slash", "two\nlines"):
        (tmp_path / name).write_text(name)
    files = [
        OutputFile(path.name, path.stat().st_size, file_sha256(path)) for path in tmp_path.iterdir()
    ]
    listing = "LC_ALL=C; export LC_ALL; sha256sum * | sha256sum"
    said = subprocess.run(listing, shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert said.stdout.decode().split()[0] == sha256_of_all(files)
    assert sha256_of_all(files[:1]) == files[0].sha256
    for index, file in enumerate(files):  # any of them, not the first alone
        others = [*files[:index], replace(file, sha256="0" * 64), *files[index + 1 :]]
        assert sha256_of_all(others) != sha256_of_all(files)


def test_a_badge_of_several_files_says_that_its_hash_is_of_all() -> None:
    assert "sha256sum" not in svg(BADGE)
    picture = svg(replace(BADGE, count=3))
    assert f"(SHA-256 {BADGE.sha256} of the sha256sum of its 3 files)" in picture


def test_a_badge_is_of_one_file(tmp_path: Path) -> None:
    files = [tiny_gguf.write(tmp_path / name).path for name in "ab"]
    done = audit(*files, "--against", tmp_path, "--badge", tmp_path / "badge.svg")
    assert done.exit_code == 2
    assert "--badge is of one file, and FILES are 2" in done.output
    assert not (tmp_path / "badge.svg").exists()


def test_the_day_of_a_run_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EPOCH, "0")
    assert day() == "1970-01-01"
    monkeypatch.setenv(EPOCH, "soon")
    done = audit("x.gguf", "--inspect")
    assert (done.exit_code, "not seconds since 1970" in done.output) == (2, True)


def test_a_receipt_is_of_its_file_and_signed(left: Left, signed: Path, key: Path) -> None:
    done = release("verify", signed, "--key", key / "key.pub", "--file", left.file)
    assert done.exit_code == 0, done.output
    assert "as it was written; its signature is right" in done.output
    assert f"on {DAY}" in done.output
    assert f"{left.file}: of tiny" in done.output
    assert not [path.name for path in left.receipt.iterdir() if path.name not in (RECEIPT, REPORT)]


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


@pytest.mark.parametrize("key_given", [True, False])
@pytest.mark.parametrize("name", [REPORT, RECEIPT, "model.sig"])
def test_any_byte_of_a_receipt_that_changes_is_noticed(
    signed: Path, key: Path, name: str, key_given: bool
) -> None:
    path = signed / name
    data = path.read_bytes()
    signer = ("--key", key / "key.pub") if key_given else ()
    for place in range(0, len(data), max(1, len(data) // 6)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        done = release("verify", signed, *signer)
        assert done.exit_code == 1, (place, done.output)


def test_what_an_unsigned_receipt_says_otherwise_than_its_report(
    left: Left, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(left.receipt, tmp_path / "receipt"))
    path = folder / RECEIPT
    verdict = json.loads(path.read_text())["audited"][0]["verdict"]
    other = next(item.value for item in Verdict if item.value != verdict)
    changed(path, f'"verdict": "{verdict}"', f'"verdict": "{other}"')
    done = release("verify", folder)
    assert done.exit_code == 1
    assert "or came out otherwise, says parity.json" in done.output


def test_a_consistent_forgery_is_noticed_by_its_signature(signed: Path, key: Path) -> None:
    changed(signed / RECEIPT, DAY, "2027-01-01")
    assert release("verify", signed).exit_code == 0
    done = release("verify", signed, "--key", key / "key.pub")
    assert done.exit_code == 1
    assert "model.sig" in done.output


def test_another_file_is_noticed(left: Left, signed: Path, tmp_path: Path) -> None:
    data = bytearray(left.file.read_bytes())
    data[-1] ^= 1
    (tmp_path / left.file.name).write_bytes(data)
    (tmp_path / "other.gguf").write_bytes(b"other")
    (signed / "extra").write_bytes(b"")
    files = ("--file", tmp_path / left.file.name, "--file", tmp_path / "other.gguf")
    done = release("verify", signed, *files)
    assert done.exit_code == 1
    assert f"{left.file.name}: changed since it was audited" in done.output
    assert "other.gguf: not one that was audited" in done.output
    assert "extra: not part of the receipt" in done.output


@pytest.fixture(scope="module")
def partly(left: Left, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The receipt of an audit of a good file, one that is cut off, and a graph without its data."""
    folder = tmp_path_factory.mktemp("partly")
    cut, receipt = folder / "cut.gguf", folder / "receipt"
    cut.write_bytes(left.file.read_bytes()[:-1000])
    graphs = export_tiny(left.model, "onnx", "fp32", folder / "out").path
    (graphs / "edgeproof.json").unlink()
    (graphs / "onnx/model.onnx_data").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 50)
        patch.setattr(statistics, "RESAMPLES", 50)
        patch.setenv("EDGEPROOF_CACHE", left.cache)
        done = audit(
            left.file, cut, graphs / "onnx/model.onnx", "--against", left.model,
            "--text", left.folder / "text.jsonl", "--no-footprint", "--receipt", receipt,
        )  # fmt: skip
    assert done.exit_code == 1, done.output
    return receipt


def test_damaged_files_are_in_the_receipt_as_damaged(partly: Path) -> None:
    graph, cut = read_receipt(partly).damaged or ()
    folder = partly.parent
    assert (cut.name, cut.hub) == (str(folder / "cut.gguf"), None)
    assert "cut.gguf" in cut.reason
    assert [item.path for item in cut.files] == ["cut.gguf"]
    assert cut.files[0].sha256 == file_sha256(folder / "cut.gguf")
    assert "which is missing" in graph.reason
    assert "onnx/model.onnx" in {item.path for item in graph.files}
    done = release("verify", partly, "--file", folder / "cut.gguf")
    assert done.exit_code == 0, done.output
    assert f"cut.gguf: FAIL, damaged: {cut.reason}" in done.output
    assert done.output.count("damaged: ") == 2


def test_a_receipt_that_conceals_what_was_damaged_is_noticed(partly: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(partly, tmp_path / "receipt"))
    receipt = read_receipt(folder)
    assert receipt.damaged is not None
    for damaged in (receipt.damaged[:1], (), (*receipt.damaged, NO_SUCH)):
        (folder / RECEIPT).write_bytes(receipt_bytes(replace(receipt, damaged=damaged)))
        done = release("verify", folder)
        assert (done.exit_code, "damaged" in done.output) == (1, True)
    # One of before receipts named them.
    raw = json.loads((folder / RECEIPT).read_text())
    old = {**{key: raw[key] for key in raw if key != "damaged"}, "schema": 1}
    text = json.dumps(old, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / RECEIPT).write_text(f"{text}\n")
    assert release("verify", folder).exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("link", [True, False])
def test_a_report_that_has_no_end_is_not_read(left: Left, tmp_path: Path, link: bool) -> None:
    shutil.copy(left.receipt / RECEIPT, tmp_path)
    (tmp_path / REPORT).symlink_to("/dev/zero") if link else os.mkfifo(tmp_path / REPORT)
    done = release("verify", tmp_path)
    assert (done.exit_code, f"{REPORT}: no plain file" in done.output) == (1, True)


def test_a_receipt_takes_no_other_folder_s_place(left: Left, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    done = audit(left.file, "--against", tmp_path, "--receipt", tmp_path)
    assert done.exit_code == 2
    assert "holds something else than a receipt" in done.output
    done = release("verify", tmp_path, "--file", left.file)
    assert (done.exit_code, "no receipt of an audit" in done.output) == (2, True)
    # Not with a receipt beside what is another's, either: the folder is replaced as a whole.
    shutil.copy(left.receipt / RECEIPT, tmp_path)
    done = audit(left.file, "--against", tmp_path, "--receipt", tmp_path)
    assert (done.exit_code, "something else than a receipt" in done.output) == (2, True)
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("option", ["--badge", "--json", "--markdown"])
def test_nothing_else_is_written_into_a_receipt(left: Left, tmp_path: Path, option: str) -> None:
    receipt = tmp_path / "receipt"
    arguments = (option, receipt / "other.json", "--receipt", receipt)
    done = audit(left.file, "--against", tmp_path, *arguments)
    assert (done.exit_code, "lies in the receipt" in done.output) == (2, True)
    assert not receipt.exists()
