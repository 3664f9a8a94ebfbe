"""`python -m runtimes.chat`: talk to an artifact, or to two beside each other."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from edgeproof.command import NAMED, EdgeproofCommand, root_option
from edgeproof.errors import InputError
from runtimes.chat.conversation import Conversation
from runtimes.chat.reply import Reply, Sampling
from runtimes.chat.screen import stream, stream_both
from runtimes.chat.voice import Voice, open_voice
from runtimes.computing import Computing, device_option
from runtimes.threads import threads_option

ASK = "> "


@click.command(cls=EdgeproofCommand, name="chat", takes_interrupts=True)
@click.argument("target", metavar="[ARTIFACT|MODEL]", required=False)
@click.option(
    "--compare",
    "pair",
    type=NAMED,
    nargs=2,
    metavar="A B",
    help="Two of them beside each other: the same prompts and random numbers, the first token that"
    " differs marked. The conversation goes on with A's replies.",
)
@click.option("--runtime", help="Run the artifact in this runtime, such as webgpu.")
@click.option("--system", default="", help="System prompt.")
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.2, show_default=True, help="0: greedy."
)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.9, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Of the random numbers; otherwise by chance.")
@root_option(": its run.json knows models by name")
@device_option
@threads_option
def main(
    target: str | None,
    pair: tuple[str, str] | None,
    runtime: str | None,
    system: str,
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int | None,
    root: Path,
    device: str,
    threads: int,
) -> None:
    """Chat with an export in its runtime, through its own chat template.

    ARTIFACT is an artifact's folder; MODEL is a checkpoint folder, or the name of a model that
    `python -m export` exported: it runs in PyTorch. Ctrl-C stops an answer, /help lists commands.

    \b
    Examples:
      python -m runtimes.chat artifacts/M/gguf/q8_0
      python -m runtimes.chat M
      python -m runtimes.chat --compare artifacts/M/onnx/q4 M
      echo "What is the capital of France?" | python -m runtimes.chat artifacts/M/onnx/q8
    """  # noqa: D301
    if (target is None) == (pair is None):
        raise InputError("name one ARTIFACT or MODEL, or --compare A B")
    sampling = Sampling(
        temperature, top_p, max_tokens, secrets.randbits(32) if seed is None else seed
    )
    voices = [
        open_voice(name, root, runtime, threads, Computing(device=device))
        for name in pair or (target or "",)
    ]
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and its editing keys
    try:
        _talk(Console(), voices, Conversation(system), sampling)
    finally:
        for voice in voices:
            voice.runtime.close()


def _talk(
    console: Console, voices: Sequence[Voice], conversation: Conversation, sampling: Sampling
) -> None:
    """Ask for lines until there are no more.

    Raises:
        InputError: what is piped in is no text, or some of it had no answer.
    """
    unanswered = 0
    while True:
        try:
            line = input(ASK if console.is_terminal else "").strip()
            line.encode("utf-8")
        except UnicodeError:
            raise InputError("stdin: not UTF-8 text; convert it to UTF-8") from None
        except (EOFError, RuntimeError):  # there is no stdin
            break
        except KeyboardInterrupt:
            console.print("\n/quit or Ctrl-D ends the chat", style="dim")
            continue
        if line.startswith("/"):
            answer = conversation.command(line)
            if answer is None:
                break
            console.print(Text(answer, style="dim"))
        elif line:
            unanswered += not _answer(console, voices, conversation, sampling, line)
    if unanswered and not console.is_terminal:
        raise InputError(f"{unanswered} of the messages had no answer")


def _answer(
    console: Console,
    voices: Sequence[Voice],
    conversation: Conversation,
    sampling: Sampling,
    question: str,
) -> bool:
    """Answer, if the question can be put."""
    messages = conversation.ask(question)
    try:
        replies = [
            Reply(voice, voice.prompt(messages), sampling, conversation.asked) for voice in voices
        ]
    except InputError as error:
        console.print(Text(str(error), style="red"))
        return False
    if len(voices) == 1:
        stream(console, replies[0])
    else:
        stream_both(console, voices, replies)
    conversation.keep(question, replies[0].text)
    return True


if __name__ == "__main__":
    main()
