"""How replies look in a terminal: streamed, or two beside each other with what differs marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runtimes.chat.reply import Reply
from runtimes.chat.voice import Voice
from runtimes.parity.decoding import first_difference
from runtimes.parity.replies import parted

DIFFERENT = "▶"  # also without colours


def stream(console: Console, reply: Reply) -> bool:
    """Write a reply as it grows; False if Ctrl-C ended it."""
    shown = 0
    try:
        for _ in reply:
            text = reply.text
            console.print(Text(text[shown:]), end="", soft_wrap=True)
            shown = len(text)
    except KeyboardInterrupt:
        console.print(Text(" …stopped", style="dim"), end="")
        return False
    finally:
        console.print()
        console.print(Text(reply.pace, style="dim"))
    return True


def stream_both(console: Console, voices: Sequence[Voice], replies: Sequence[Reply]) -> bool:
    """Write two replies beside each other, token by token in turns; False if Ctrl-C ended them."""
    finished = True
    with Live(console=console, auto_refresh=False, transient=False) as live:
        try:
            for _ in _in_turns(replies):
                if console.is_terminal:
                    live.update(_beside(voices, replies, ended=False), refresh=True)
        except KeyboardInterrupt:
            finished = False
        live.update(_beside(voices, replies, ended=finished), refresh=True)
    return finished


def _in_turns(replies: Sequence[Reply]) -> Iterator[None]:
    """One token of each in turn, until all have ended."""
    running = [iter(reply) for reply in replies]
    while running:
        running = [tokens for tokens in running if next(tokens, None) is not None]
        yield


def _beside(voices: Sequence[Voice], replies: Sequence[Reply], *, ended: bool) -> Table:
    lengths = [len(reply.ids) for reply in replies]
    agreed = first_difference(replies[0].ids, replies[1].ids)
    # While they run, the one that is behind has not parted yet.
    apart = max(lengths) > agreed if ended else min(lengths) > agreed
    table = Table(expand=True, show_footer=True)
    cells = []
    for voice, reply in zip(voices, replies, strict=True):
        table.add_column(Text(voice.name), Text(reply.pace, style="dim"), ratio=1)
        cells.append(_marked(voice, reply, agreed) if apart else Text(reply.text))
    table.add_row(*cells)
    if ended:
        table.caption = f"they part after {agreed} tokens" if apart else "token for token the same"
    return table


def _marked(voice: Voice, reply: Reply, agreed: int) -> Text:
    same, token, rest = parted(reply.ids, agreed, voice.runtime.detokenize)
    mark = Text(DIFFERENT + token, style="bold reverse") if token else Text(f"{DIFFERENT}(ends)")
    return Text.assemble(same, mark, rest)
