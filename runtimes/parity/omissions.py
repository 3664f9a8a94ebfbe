"""Say what a text is too poor for, so that nobody takes its silence for a proof."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.gates import Gate
from runtimes.parity.measure import Measurement
from runtimes.parity.padding import can_be_padded
from runtimes.parity.reference import Reference
from runtimes.parity.suite import Prompt


def not_compared(prompts: Sequence[Prompt], reference: Reference) -> list[str]:
    """What was not looked at since the text has no example of it, in words."""
    notes = []
    if not any(prompt.messages for prompt in prompts):
        notes.append(
            "the text has no chats: chat templates and replies were not compared; give a .jsonl"
            " with messages"
        )
    elif not (reference.greedy_chats or reference.sampled_chats):
        notes.append(
            "no chat of the text can be answered, for want of a chat template or of room in the"
            " context: replies were not compared"
        )
    if not can_be_padded(reference.documents):
        notes.append("the text is too short for a padded batch: left padding was not compared")
    if reference.probe is None:
        notes.append(
            "no long text was read, which --text and --positions leave out: what begins late, as a"
            " window of attention does, may not show"
        )
    return notes


def set_apart(measurement: Measurement) -> list[str]:
    """The strings that say nothing of the export, in words."""
    if not measurement.tokenizer_apart:
        return []
    return [
        f"{measurement.tokenizer_apart} strings were left out of the comparison of tokenizers:"
        " this runtime's library reads them otherwise, whatever the file says"
    ]


def not_judged(gates: Sequence[Gate], measurement: Measurement) -> list[str]:
    """The gates of the weights alone that nothing was compared with, in words."""
    names = [gate.text for gate in gates if gate.of_weights]
    if not names or measurement.exact_weights or measurement.weights is not None:
        return []
    return [f"not judged: {', '.join(names)}, of the weights alone, which cannot be read from it"]
