"""What can be known before work is refused before work, in one line and with exit code 2."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.space import require_files, require_folder
from edgeproof.verdicts import METRICS, RUNTIME_CLASSES
from export.plan import load_plan
from export.release.signature import require_key
from runtimes.chat.__main__ import _talk
from runtimes.chat.conversation import Conversation
from runtimes.chat.reply import Sampling
from runtimes.chat.voice import open_voice
from runtimes.parity import metrics
from runtimes.parity.gates import GATES_ON, HEADROOM
from runtimes.parity.text_file import read_suite

VARIANT = '[[variant]]\nformat = "gguf"\ndtype = "f16"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    return tmp_path


ROWS: dict[str, tuple[tuple[str, ...], str]] = {
    "no dtype": (("gguf", "-m", "gone", "-d", ""), "--dtype names none"),
    "only commas": (("gguf", "-m", "gone", "-d", ",,"), "--dtype names none"),
    "no out": (("gguf", "-m", "gone", "-d", "f16", "-o", ""), "is no path"),
    "NUL in a format's": (("mlc", "-d", "q0f16", "--model-lib", "a\0b"), "is no path"),
    "NUL": (("gguf", "-m", "gone", "-d", "f16", "-o", "a\0b"), "is no path"),
    "dangling": (("gguf", "-m", "gone", "-d", "f16", "-o", "{place}/link"), "a link to what"),
    "below a file": (("gguf", "-m", "gone", "-d", "f16", "-o", "{place}/file/x"), "not a folder"),
    "json is a folder": (("compare", "a", "b", "--json", "{place}"), "a folder; name a file"),
    "json below a file": (("compare", "a", "b", "--json", "{place}/file/x"), "not a folder"),
    "imatrix": (("imatrix", "--checkpoint", "gone", "-o", "{place}"), "name a file|is a directory"),
    "key": (("release", "build", "{place}", "--key", "{place}/file"), "not a private EC key"),
    "no key": (("release", "build", "{place}", "--key", "{place}/gone"), "not a private EC key"),
    "checkpoint": (("parity", "--root", "{place}", "--checkpoint", "x"), "explicit artifacts"),
}


@pytest.mark.parametrize("row", ROWS)
def test_an_argument_that_cannot_work_is_refused(row: str, place: Path) -> None:
    arguments, message = ROWS[row]
    before = sorted(place.rglob("*"))
    done = CliRunner().invoke(main, [text.format(place=place) for text in arguments])
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert any(text in line for text in message.split("|")), line
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VARIANT + VARIANT + "allow-degraded = true\n", "gguf f16 is in the plan twice"),
        (VARIANT + "[gates.8-bit]\nmean_kl = -1", "must not be negative"),
        (VARIANT + 'imatrix = "a\\u0000b"', "is no path"),
        (VARIANT + "[gates.eight]\nmean_kl = 1", "unknown class"),
        (VARIANT + "[gates.fp16-tvm]\nmean_kl = 1", "unknown class"),
        (VARIANT + "[gates.fp16]\nmean_klx = 1", "unknown metric 'mean_klx'; known: mean_kl"),
        (VARIANT + "[gates.fp16]\nmean_kl = nan", "must be a number, not nan"),
        (VARIANT + "[gates.fp16]\nmean_kl = inf", "must be a number, not inf"),
        ("models = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_plan(path)


def test_a_plan_knows_the_metrics_and_classes_that_parity_has() -> None:
    assert (*(metric.name for metric in metrics.METRICS), HEADROOM.metric) == METRICS
    assert tuple(f"{kind.value}-{name}" for kind, name in GATES_ON) == RUNTIME_CLASSES


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    plan, prompts = tmp_path / "plan.toml", tmp_path / "p.jsonl"
    plan.write_text("models = ['m']\n" + VARIANT, "utf-8-sig")
    assert load_plan(plan).models[0].id == "m"
    prompts.write_text('{"text": "Hello"}\n', "utf-8-sig")
    assert len(read_suite(prompts).prompts) == 1


def test_a_file_that_is_there_or_can_be_made_is_fine(place: Path) -> None:
    require_files(place / "file")
    require_files(place / "new" / "below" / "file")
    require_folder(place / "new")
    with pytest.raises(InputError, match="not a private EC key"):
        require_key(place)


def test_a_model_whose_checkpoint_is_gone_is_to_be_exported_again(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        '{"schema": 1, "models": [{"label": "M", "checkpoint": "/gone", "artifacts": []}],'
        ' "gates": {}}'
    )
    with pytest.raises(InputError, match="/gone: the checkpoint of M is missing; export it again"):
        open_voice("M", tmp_path, None, 1)


@pytest.mark.parametrize("data", ["naïve\n".encode("latin-1"), bytes(range(128, 256))])
def test_a_chat_takes_no_other_encoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    with pytest.raises(InputError, match="stdin: not UTF-8 text"):
        _talk(Console(file=io.StringIO()), [], Conversation(), Sampling(0, 1, 1, 0))


def test_a_chat_without_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    _talk(Console(file=io.StringIO()), [], Conversation(), Sampling(0, 1, 1, 0))
