"""What can be known before work is refused before work, in one line and with exit code 2."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.space import require_files, require_folder, require_spared
from edgeproof.verdicts import METRICS, RUNTIME_CLASSES
from export.plan import load_plan
from export.release.signature import require_key
from runtimes.chat.__main__ import _talk
from runtimes.chat.conversation import Conversation
from runtimes.chat.reply import Sampling
from runtimes.parity import metrics
from runtimes.parity.gates import GATES_ON, HEADROOM


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    return tmp_path


def test_a_plan_knows_the_metrics_and_classes_that_parity_has() -> None:
    assert (*(metric.name for metric in metrics.METRICS), HEADROOM.metric) == METRICS
    assert tuple(f"{kind.value}-{name}" for kind, name in GATES_ON) == RUNTIME_CLASSES


def test_a_file_that_is_there_or_can_be_made_is_fine(place: Path) -> None:
    require_files(place / "file")
    require_files(place / "new" / "below" / "file")
    require_folder(place / "new")
    with pytest.raises(InputError, match="not a private EC key"):
        require_key(place)


def test_nothing_is_written_over_what_is_read(place: Path) -> None:
    (place / "link").symlink_to(place / "file")
    require_spared(place / "new", None, reads=[place / "file", None, place / "gone"])
    for read in (place / "file", place / "link"):
        with pytest.raises(InputError, match="is read, it must not be written"):
            require_spared(place / "new", place / "file", reads=[read])


@pytest.mark.parametrize("name", ["../x y", "", "-a", "a/b", "a" * 97, "a\n"])
def test_an_owner_is_a_name_of_the_hub(name: str) -> None:
    done = CliRunner().invoke(main, ["release", "build", "--version", "1", "--namespace", name])
    assert done.exit_code == 2
    assert "no name of a user or organization" in done.output


@pytest.mark.parametrize("data", ["naïve\n".encode("latin-1"), bytes(range(128, 256))])
def test_a_chat_takes_no_other_encoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    with pytest.raises(InputError, match="stdin: not UTF-8 text"):
        _talk(Console(file=io.StringIO()), [], Conversation(), Sampling(0, 1, 1, 0))


def test_a_chat_without_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    _talk(Console(file=io.StringIO()), [], Conversation(), Sampling(0, 1, 1, 0))


def test_no_file_takes_the_place_of_a_device_or_pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")
    for path in (place / "pipe", Path(os.devnull)):
        with pytest.raises(InputError, match="no regular file"):
            require_files(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("recover", "-m", "m", "-o", "out", "--format", "gguf", "--bits", "nan"),
        ("recover", "-m", "m", "-o", "out", "--format", "gguf", "--max-mb", "inf"),
        ("chat", "m", "--temperature", "nan"),
        ("chat", "m", "--temperature", "inf"),
        ("chat", "m", "--top-p", "nan"),
    ],
)
def test_nan_and_infinity_are_no_numbers(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "is no number" in done.output or "not in the range" in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[gates.8-bit]\nmean_kl = {}",
        '[[variant]]\nformat = "gguf"\ndtype = "auto"\nrecover = {{ bits = {} }}',
        'models = [{{ id = "m", adapters = [{{ id = "a", weight = {} }}] }}]',
        "schema = {}",
    ],
)
def test_a_plan_has_no_number_that_toml_has_not(place: Path, text: str) -> None:
    (place / "plan.toml").write_text(text.format("1" * 401))
    with pytest.raises(InputError, match="a number of more than 64 bits"):
        load_plan(place / "plan.toml")
