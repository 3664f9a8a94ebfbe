"""Releases: only what passed, in the layouts that users expect, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path

import onnx
import pytest
import yaml
from click.testing import Result
from markdown_it import MarkdownIt

from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.verdicts import (
    ELSEWHERE,
    EVALUATION,
    Beside,
    Score,
    ShortRun,
    TaskScore,
    Verdict,
    write_scores,
    write_short_runs,
)
from export.release.archives import write_archive
from export.release.dist import Dist
from export.release.notes import release_notes
from export.release.record import read_record
from tests.parity_results import HOSTILE
from tests.publishing import digests, run
from tests.releases import LABEL

ROOT = Path(__file__).parent.parent
NAME = "llama-0M-1.0"


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """Artifacts that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def release(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(out / "cache"))
        done = build(exported, out)
    assert done.exit_code == 0, done.output
    return out / NAME


def build(root: Path, out: Path, *arguments: str | Path) -> Result:
    return run("build", root, "--version", "1.0", "--out", out, *arguments)


def front_matter(path: Path) -> dict[str, object]:
    _, text, _ = path.read_text("utf-8").split("---\n", 2)
    facts = yaml.safe_load(text)
    assert isinstance(facts, dict)
    return facts


def edit_report(root: Path, variant: str, **changes: object) -> None:
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    (item,) = (item for item in raw["artifacts"] if item["variant"] == variant)
    item.update(changes)
    path.write_text(json.dumps(raw))


def test_onnx_variants_share_one_transformers_js_repository(release: Path) -> None:
    folder = release / "llama-0M-ONNX"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["model_type"] == "llama"
    section = config["transformers.js_config"]
    assert section["use_external_data_format"] == {"model_fp16.onnx": 1, "model_quantized.onnx": 1}
    assert section["kv_cache_dtype"].keys() == {"fp16", "q8"}
    graphs = {path.name for path in (folder / "onnx").iterdir()}
    assert graphs >= {"model_fp16.onnx", "model_fp16.onnx_data", "model_quantized.onnx"}
    genai = json.loads((folder / "genai_config.json").read_text("utf-8"))
    assert (
        genai["model"]["decoder"]["filename"] == "model_quantized.onnx"
    )  # the smallest that passes


def test_gguf_shares_a_repository_and_each_mlc_scheme_has_its_own(release: Path) -> None:
    gguf = {path.name for path in (release / "llama-0M-GGUF").glob("*.gguf")}
    assert {name.rpartition("-")[2] for name in gguf} == {"Q8_0.gguf", "Q4_0.gguf"}
    assert (release / "llama-0M-q0f16-MLC" / "tensor-cache.json").is_file()


def test_every_file_is_in_sums_and_manifest(release: Path) -> None:
    found = digests(release)
    lines = (release / "SHA256SUMS").read_text().splitlines()
    sums = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    del found["SHA256SUMS"]
    assert sums == found
    recorded = {item["path"]: item["sha256"] for item in read_record(release)["files"]}
    assert found.keys() - recorded.keys() == {"manifest.json", "provenance.intoto.json"}
    assert recorded.items() <= found.items()
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=release, check=True)


def test_cards_keep_the_sources_facts_and_show_what_was_measured(release: Path) -> None:
    path = release / "llama-0M-GGUF" / "README.md"
    facts = front_matter(path)
    assert facts["license"] == "apache-2.0"
    assert facts["base_model"] == "some/base"
    assert facts["datasets"] == ["some/data"]
    assert {"gguf", "sft"} <= set(facts["tags"])  # type: ignore[call-overload]
    assert "model-index" not in facts
    text = path.read_text("utf-8")
    (row,) = (line for line in text.splitlines() if line.startswith("| `q8_0`"))
    assert "**PASS**" in row
    assert "1.0e-03" in row
    assert " | 1,199 of 1,200 (95 % upper bound 100 %) | " in row
    assert "runtime a, float32" in row
    assert "What this does not show:\n\n- `q8_0`, `q4_0`: not run in a\n" in text
    assert "real runtime" not in text
    assert "n = " not in row
    (row,) = (line for line in text.splitlines() if line.startswith("| `q4_0`"))
    assert row.endswith("| **DEGRADED**, n = 5 |")
    assert "**`q4_0` is DEGRADED.**" in text
    assert "too bad" in text
    assert "--temp 0.2 --top-p 0.9" in text
    assert "`ollama run hf.co/your-name/llama-0M-GGUF:Q8_0`" in text
    assert "DEGRADED" not in (release / "llama-0M-ONNX" / "README.md").read_text("utf-8")


def test_the_cards_onnx_runtime_example_runs(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = release / "llama-0M-ONNX"
    text = (folder / "README.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    download = 'snapshot_download("your-name/llama-0M-ONNX")'
    assert download in code
    exec(code.replace(download, repr(str(folder))), {})
    assert capsys.readouterr().out.strip()


def test_archives_hold_what_one_variant_needs(release: Path) -> None:
    (archive,) = (release / "archives").glob("*-onnx-fp16.zip")
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        names = set(file.namelist())
    assert {"llama-0M-ONNX/onnx/model_fp16.onnx_data", "llama-0M-ONNX/tokenizer.json"} <= names
    assert not any("quantized" in name for name in names)


@pytest.mark.parametrize("part_bytes", [1, 1000, 4096, 1 << 30])
def test_joined_parts_are_the_archive(tmp_path: Path, part_bytes: int) -> None:
    members = {}
    for name, size in (("a/one", 5000), ("b", 0), ("c", 1)):
        members[name] = tmp_path / name.replace("/", "-")
        members[name].write_bytes(os.urandom(size) if part_bytes > 1 else b"")
    parts = write_archive(tmp_path, "x", members, part_bytes)
    assert all(part.bytes <= part_bytes for part in parts)
    (tmp_path / "joined.zip").write_bytes(b"".join((tmp_path / p.path).read_bytes() for p in parts))
    for part in parts:
        data = (tmp_path / part.path).read_bytes()
        assert part == OutputFile(part.path, len(data), hashlib.sha256(data).hexdigest())
    with zipfile.ZipFile(tmp_path / "joined.zip") as file:
        assert {name: file.read(name) for name in file.namelist()} == {
            name: path.read_bytes() for name, path in members.items()
        }


@pytest.mark.parametrize(
    ("verdict", "allowed", "word"),
    [(Verdict.FAIL, True, "FAIL"), (Verdict.DEGRADED, False, "allow-degraded"),
     (Verdict.INCONCLUSIVE, False, "allow-degraded")],
)  # fmt: skip
def test_what_did_not_pass_is_refused(
    root: Path, tmp_path: Path, verdict: Verdict, allowed: bool, word: str
) -> None:
    edit_report(root, "q8_0", verdict=verdict.value, allow_degraded=allowed)
    done = build(root, tmp_path / "dist")
    assert done.exit_code == 1
    assert "gguf q8_0: " in done.output
    assert word in done.output
    assert not (tmp_path / "dist").exists()
    assert build(root, tmp_path / "dist", "--exclude", "gguf/q8_0").exit_code == 0


def test_degraded_variants_pass_with_the_flag(root: Path, tmp_path: Path) -> None:
    edit_report(root, "q8_0", verdict="DEGRADED")
    assert build(root, tmp_path / "dist", "--allow-degraded").exit_code == 0


def test_every_refusal_has_a_line(root: Path, tmp_path: Path) -> None:
    edit_report(root, "q8_0", verdict="FAIL")
    edit_report(root, "q0f16", verdict="FAIL")
    lines = build(root, tmp_path / "dist").output.splitlines()
    assert [line.strip().partition(":")[0] for line in lines[1:]] == ["gguf q8_0", "mlc q0f16"]


@pytest.mark.parametrize("suffix", [".gguf", ".onnx_data", "edgeproof.json", "tokenizer.json"])
def test_what_was_changed_after_the_comparison_is_stale(
    root: Path, tmp_path: Path, suffix: str
) -> None:
    path = next(iter(sorted((root / LABEL).rglob(f"*{suffix}"))))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = build(root, tmp_path / "dist")
    assert done.exit_code in (1, 2)
    assert str(path) in done.output


def test_what_was_compared_and_is_gone_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / LABEL / "gguf" / "q8_0")
    done = build(root, tmp_path / "dist")
    assert done.exit_code == 1
    assert "gguf q8_0: compared, but no longer there" in done.output


def test_notes_tell_what_changed(release: Path) -> None:
    record = read_record(release)
    assert "The first release." in release_notes(record, None).decode()
    before = json.loads(json.dumps(record))
    before["version"] = "0.9"
    first, second, third, *_ = before["variants"]
    first["manifest"] = "0" * 64
    first["bytes"] -= 1_000_000
    second["metrics"]["mean_kl"]["value"] += 0.5
    third["variant"] = "q5_0"
    text = release_notes(record, before).decode()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert "| changed |" in rows["onnx fp16"]
    assert "(+1.0)" in rows["onnx fp16"]
    assert "compared again" in rows["onnx q8"]
    assert "(−0.500)" in rows["onnx q8"]
    assert "| new |" in rows["gguf q8_0"]
    assert "| unchanged |" in rows["mlc q0f16"]
    assert "`gguf q5_0` is no longer released" in text


def test_a_build_names_the_previous_release(exported: Path, release: Path, tmp_path: Path) -> None:
    assert build(exported, tmp_path, "--previous", release, "--no-archives").exit_code == 0
    notes = (tmp_path / NAME / "RELEASE_NOTES.md").read_text("utf-8")
    assert "Compared with 1.0" in notes
    assert not (tmp_path / NAME / "archives").exists()


def test_an_artifact_that_changes_during_the_build_is_named(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"changed")
    with pytest.raises(InputError, match="weights: its artifact changed during the build"):
        Dist(tmp_path / "dist").add("weights", source, hashlib.sha256(b"compared").hexdigest())


def test_a_full_disk_is_said_before_anything_is_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    done = build(exported, tmp_path / "dist")
    assert done.exit_code == 2
    assert "MB are needed and 0.0 MB are free" in done.output


@pytest.mark.parametrize(
    ("locale", "zone", "seed", "umask", "now"),
    [
        ("tr_TR.UTF-8", "Pacific/Kiritimati", "7", 0o077, 2e9),
        ("C", "America/St_Johns", "random", 0o002, 1e9),
        ("de_DE.ISO-8859-1", "UTC", "1", 0o022, 0.0),
    ],
)
def test_builds_elsewhere_and_on_another_day_are_the_same(
    release: Path, root: Path, tmp_path: Path,
    locale: str, zone: str, seed: str, umask: int, now: float,
) -> None:  # fmt: skip
    """Another process, hash seed, locale, time zone, clock, umask, folder, file times and cache."""
    for path in root.rglob("*"):
        os.utime(path, (now, now))
    script = (
        "import os, sys, time\n"
        f"os.umask({umask})\n"
        f"time.time = lambda: {now}\n"
        "from export.release.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {
        **os.environ,
        "EDGEPROOF_CACHE": str(tmp_path / "cache"),
        "LC_ALL": locale,
        "PYTHONHASHSEED": seed,
        "TZ": zone,
        "PYTHONPATH": str(ROOT),
    }
    out = tmp_path / "other dist"
    command = [sys.executable, "-c", script, "build", str(root), "--version", "1.0", "--out", out]
    subprocess.run(command, env=environment, check=True, cwd=tmp_path, capture_output=True)
    assert digests(out / NAME) == digests(release)


def test_notes_say_how_parts_are_joined(release: Path) -> None:
    record = read_record(release)
    record["archives"]["gguf q8_0"] = ["archives/x.zip.001", "archives/x.zip.002"]
    assert "`cat archives/x.zip.* > archives/x.zip`" in release_notes(record, None).decode()


def test_hostile_text_stays_text_in_cards_and_notes(root: Path, tmp_path: Path) -> None:
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    raw["reference"]["runtime"] = raw["reference"]["text"]["name"] = HOSTILE
    for item in raw["artifacts"]:
        item["measurement"]["runtime"] = item["measurement"]["execution"]["activations"] = HOSTILE
        item["measurement"]["execution"]["unseen"] = [HOSTILE]
    path.write_text(json.dumps(raw))
    edit_report(root, "q4_0", reasons=[HOSTILE])
    assert build(root, tmp_path).exit_code == 0
    for file in (*(tmp_path / NAME).glob("*/README.md"), tmp_path / NAME / "RELEASE_NOTES.md"):
        html = MarkdownIt("commonmark").enable("table").render(file.read_text("utf-8"))
        assert "<script" not in html
        assert "<img" not in html
        assert "<code>**" not in html
    assert " ".join(HOSTILE.split()).replace("\x1b", "") in unescape(html).replace("\x1b", "")


def test_a_card_shows_what_short_runs_elsewhere_answer(root: Path, tmp_path: Path) -> None:
    raw = json.loads((root / LABEL / "parity.json").read_text("utf-8"))
    for item in raw["artifacts"]:
        item["measurement"]["execution"]["unseen"] = ["not run in P: there", "not run in Q: there"]
    (root / LABEL / "parity.json").write_text(json.dumps(raw))
    made = {item["variant"]: item["manifest"] for item in raw["artifacts"]}
    figures = (200, 3e-4, 1e-4, 5e-4)
    runs = [
        ShortRun(
            "onnx", variant, made.get(variant, "0" * 64), "not run in P: there", "P", "a GPU",
            3, *figures, Verdict.INCONCLUSIVE, ("too little text",),
        )
        for variant in ("fp16", "gone")
    ]  # fmt: skip
    write_short_runs(root / LABEL / ELSEWHERE, runs)
    assert build(root, tmp_path).exit_code == 0
    text = (tmp_path / NAME / "llama-0M-ONNX" / "README.md").read_text("utf-8").replace("\\", "")
    (line,) = (line for line in text.splitlines() if line.startswith("- `fp16`: judged"))
    assert "judged on a GPU, 200 positions of 3 texts" in line
    assert "INCONCLUSIVE: too little text" in line
    assert "- `q8`: not run in P: there" in text
    assert "- `fp16`, `q8`: not run in Q: there" in text
    assert (tmp_path / NAME / ELSEWHERE).is_file()


def test_a_card_shows_scores_in_tasks_of_its_own_bytes(root: Path, tmp_path: Path) -> None:
    raw = json.loads((root / LABEL / "parity.json").read_text("utf-8"))
    made = {item["variant"]: item["manifest"] for item in raw["artifacts"]}
    beside = Beside("torch", Score(0.5, 0.4, 0.6), Score(-0.1, -0.2, 0.0), 7, 2, 0.18, 11)
    scores = [
        TaskScore(
            "onnx", variant, manifest, "runtime 9 (CPU)", "0.4.13", HOSTILE, "1", "acc", "none",
            True, 5, True, "ab", 50, 100, Score(0.4, 0.3, 0.5), beside,
        )
        for variant, manifest in (("fp16", made["fp16"]), ("q8", "0" * 64))
    ]  # fmt: skip
    write_scores(root / LABEL / EVALUATION, scores)
    assert build(root, tmp_path).exit_code == 0
    text = (tmp_path / NAME / "llama-0M-ONNX" / "README.md").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if "50 of 100 questions" in line)
    row = [cell.strip() for cell in line.replace("\\", "").strip("|").split(" | ")]
    assert row[0] == "onnx fp16"
    assert row[3:10] == [
        "0.4 [0.3, 0.5]", "0.5 [0.4, 0.6]", "-0.1 [-0.2, +0]", "0.180", "7", "2", "11",
    ]  # fmt: skip
    assert "<script" not in text
    assert "answered in runtime 9" in text
    assert "## Tasks" not in (tmp_path / NAME / "llama-0M-GGUF" / "README.md").read_text("utf-8")
    assert (tmp_path / NAME / EVALUATION).is_file()


def test_an_undecided_variant_is_not_called_worse(root: Path, tmp_path: Path) -> None:
    edit_report(root, "q4_0", verdict="INCONCLUSIVE")
    assert build(root, tmp_path).exit_code == 0
    text = (tmp_path / NAME / "llama-0M-GGUF" / "README.md").read_text("utf-8")
    assert "**`q4_0` is INCONCLUSIVE.**" in text
    assert "is not decided" in text


def test_a_release_leaves_onnx_files_that_onnx_reads(exported: Path, release: Path) -> None:
    for folder in (exported / LABEL / "onnx", release):
        graphs = list(folder.rglob("onnx/*.onnx"))
        assert graphs
        for graph in graphs:
            onnx.load(graph)  # it refuses external data with several hard links
