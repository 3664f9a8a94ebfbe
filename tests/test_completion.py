"""The shell completes commands and options, each command imported only once it is named."""

from __future__ import annotations

from click.shell_completion import BashComplete

from edgeproof.cli import commands, main


def completed(words: list[str], begun: str) -> set[str]:
    shell = BashComplete(main, {}, "edgeproof", "_EDGEPROOF_COMPLETE")
    return {item.value for item in shell.get_completions(words, begun)}


def test_commands_and_their_options_are_completed() -> None:
    assert completed([], "") == set(commands())
    assert completed([], "par") == {"parity"}
    assert completed(["release"], "b") == {"build"}
    assert completed(["gguf"], "--dt") == {"--dtype"}
    assert completed(["parity", "--budget"], "f") == {"fast", "full"}
    assert completed(["chat"], "--no-such") == set()
