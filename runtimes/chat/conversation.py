"""What was said yet, and the commands that change it."""

from __future__ import annotations

from dataclasses import dataclass, field

HELP = "/system TEXT: set the system prompt, empty for none · /reset: begin anew · /quit, Ctrl-D"


@dataclass
class Conversation:
    """Messages in order, after the system message if there is one."""

    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0

    def ask(self, text: str) -> list[dict[str, str]]:
        """The conversation with a question at its end, which is not remembered before `keep`."""
        return [*self._head(), *self.turns, {"role": "user", "content": text}]

    def keep(self, question: str, answer: str) -> None:
        """Remember a question with its answer, or with as much of it as there is."""
        self.turns += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        self.asked += 1

    def command(self, line: str) -> str | None:
        """Carry out a line that begins with a slash: what to say of it, None to quit."""
        name, _, text = line.partition(" ")
        if name in ("/quit", "/exit"):
            return None
        if name == "/reset":
            self.turns.clear()
            return "a new conversation"
        if name == "/system":
            self.system = text.strip()
            self.turns.clear()
            return f"a new conversation, system prompt: {self.system or 'none'}"
        return HELP

    def _head(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}] if self.system else []
