"""The terminal chat: every format talks, Ctrl-C ends an answer, two voices draw alike."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runtimes.chat.__main__ import main
from runtimes.chat.conversation import Conversation
from runtimes.chat.reply import Reply, Sampling
from runtimes.chat.voice import open_voice
from runtimes.protocol import TextRuntime
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

CASES = [("onnx", "fp32"), ("gguf", "f32"), ("mlc", "q0f32"), ("pytorch", "")]
STRINGS = ["Hello  world 1999", "naïve 東京 🙂", "<|im_start|>user\nHi<|im_end|>\n"]
GREEDY = Sampling(temperature=0, top_p=0.9, max_tokens=12, seed=0)
ASKED = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        make_checkpoint(folder / "checkpoint")
        yield folder


def target(root: Path, form: str, variant: str) -> str:
    checkpoint = root / "checkpoint"
    if form == "pytorch":
        return str(checkpoint)
    return str(export_tiny(checkpoint, form, variant, root).path)


def chat(*arguments: object, text: str = "") -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--threads", "1"], input=text)


@pytest.mark.parametrize(("form", "variant"), CASES)
def test_every_format_answers_and_gives_back_the_text_it_was_given(
    root: Path, form: str, variant: str
) -> None:
    voice = open_voice(target(root, form, variant), root, None, 1)
    assert isinstance(voice.runtime, TextRuntime)
    for text in STRINGS:
        assert voice.runtime.detokenize(voice.runtime.tokenize(text)) == text
    # llama.cpp adds tokens whose name says that they end a text.
    assert {2} <= voice.runtime.stop_tokens <= {0, 2}
    reply = Reply(voice, voice.prompt(ASKED), GREEDY, 0)
    assert list(reply) == reply.ids
    assert 0 < len(reply.ids) <= GREEDY.max_tokens
    assert "tokens" in reply.pace
    voice.runtime.close()


def test_a_reply_that_is_cut_short_leaves_a_runtime_that_answers_as_before(root: Path) -> None:
    voice = open_voice(target(root, "onnx", "fp32"), root, None, 1)
    whole = list(Reply(voice, voice.prompt(ASKED), GREEDY, 0))
    for token in Reply(voice, voice.prompt(ASKED), GREEDY, 0):
        assert token == whole[0]
        break
    assert list(Reply(voice, voice.prompt(ASKED), GREEDY, 0)) == whole
    voice.runtime.close()


def test_turns_have_random_numbers_of_their_own_and_a_seed_repeats_them() -> None:
    numbers = Sampling(0.2, 0.9, 8, seed=5).numbers
    assert (numbers(0) == numbers(0)).all()
    assert (numbers(0) != numbers(1)).all()


def test_a_conversation_remembers_until_it_is_reset() -> None:
    conversation = Conversation("Be brief.")
    conversation.keep("a", "b")
    roles = [message["role"] for message in conversation.ask("c")]
    assert roles == ["system", "user", "assistant", "user"]
    assert "new conversation" in str(conversation.command("/reset"))
    assert [message["content"] for message in conversation.ask("c")] == ["Be brief.", "c"]
    conversation.command("/system")
    assert len(conversation.ask("c")) == 1
    assert "/reset" in str(conversation.command("/what"))
    assert conversation.command("/quit") is None


def test_lines_from_a_pipe_are_answered_until_they_end(root: Path) -> None:
    folder = target(root, "gguf", "f32")
    lines = "Hi\n\n/reset\nHi again\n/quit\nnever\n"
    result = chat(folder, "--seed", 1, "--max-tokens", 6, text=lines)
    assert result.exit_code == 0, result.output
    assert result.output.count(", first after") == 2
    assert "a new conversation" in result.output


def test_an_export_without_error_says_what_pytorch_says_beside_it(root: Path) -> None:
    pair = (target(root, "onnx", "fp32"), target(root, "pytorch", ""))
    result = chat("--compare", *pair, "--seed", 3, "--temperature", 1, text="Hi\nHo\n")
    assert result.exit_code == 0, result.output
    assert result.output.count("token for token the same") == 2
    assert "onnx fp32" in result.output
    assert "PyTorch" in result.output


def test_the_first_token_that_differs_is_marked(root: Path) -> None:
    pair = (target(root, "onnx", "q4"), target(root, "pytorch", ""))
    result = chat("--compare", *pair, "--seed", 3, "--temperature", 1, text="Hi\n")
    assert "they part after" in result.output
    assert "▶" in result.output


def test_too_long_a_conversation_is_said_and_the_chat_goes_on(root: Path) -> None:
    result = chat(target(root, "onnx", "fp32"), text="a " * 3000 + "\nHi\n")
    assert result.exit_code == 2
    assert "1 of the messages had no answer" in result.output
    assert "/reset begins a new one" in " ".join(result.output.split())
    assert result.output.count(", first after") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name one ARTIFACT or MODEL"),
        (("x", "--compare", "a", "b"), "name one ARTIFACT or MODEL"),
        (("{root}",), "neither an artifact"),
        (("gone",), "gone: no such folder"),
        (("{root}/checkpoint", "--runtime", "webgpu"), "--runtime is for artifacts"),
        (("{root}/base",), "no chat template"),
    ],
)
def test_what_cannot_talk_is_refused_in_one_line(
    root: Path, arguments: tuple[str, ...], message: str
) -> None:
    settings = make_checkpoint(root / "base") / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"chat_template"', '"unused"'))
    result = chat(*(text.format(root=root) for text in arguments), "--root", root)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_ctrl_c_ends_the_answer_and_not_the_chat(tmp_path: Path) -> None:
    # Greedily this model repeats itself until the context is full, which takes minutes.
    make_checkpoint(tmp_path / "checkpoint", max_position_embeddings=20_000)
    folder = target(tmp_path, "onnx", "fp32")
    voice = open_voice(folder, tmp_path, None, 1)
    reply = Reply(voice, voice.prompt(ASKED), GREEDY, 0)
    assert len(list(reply)) == GREEDY.max_tokens
    begin = max(re.findall("[a-z]+", reply.text), key=len)
    voice.runtime.close()
    command = [sys.executable, "-m", "runtimes.chat", folder]
    command += ["--temperature", "0", "--max-tokens", "100000", "--threads", "1"]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    screen = Screen(controller)
    try:
        screen.wait_for("> ")
        os.write(controller, b"Hi\n")
        screen.wait_for(begin)
        process.send_signal(signal.SIGINT)
        screen.wait_for("…stopped")
        screen.wait_for("first after")
        screen.wait_for("> ")
        # Readline misses a signal between showing its prompt and waiting for a key.
        signals = 0
        while signals == 0 or not screen.shows("ends the chat", 1):
            assert signals < 20
            process.send_signal(signal.SIGINT)
            signals += 1
        os.write(controller, b"/quit\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(controller)


class Screen:
    """What a program writes to a terminal, read up to one text after the other."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.unread = b""

    def shows(self, text: str, seconds: float) -> bool:
        """Read on until the text is there, or for so long."""
        end = time.monotonic() + seconds
        while text.encode() not in self.unread:
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            if not ready or time.monotonic() > end:
                return False
            self.unread += os.read(self.terminal, 4096)
        self.unread = self.unread.partition(text.encode())[2]
        return True

    def wait_for(self, text: str) -> None:
        assert self.shows(text, 60), f"{text!r} is not in {self.unread!r}"
