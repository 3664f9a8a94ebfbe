"""The keys that are neither compared nor exercised by a run, each with the reason: all of them."""

from __future__ import annotations

from collections.abc import Iterable

from runtimes.contents.expectation import Free

LABEL = "a name, an author, a licence or a source, for people and for lists of models"
ROUNDED = "a record of how the weights were rounded"
# Place → reason. A place is a key of GGUF's metadata, or a JSON file and the key in it; what ends
# with a dot stands for all keys that begin so.
FREE = {
    **dict.fromkeys(
        (
            "general.author", "general.version", "general.organization",
            "general.finetune", "general.basename", "general.description", "general.size_label",
            "general.license", "general.license.", "general.source.", "general.base_model.",
            "general.dataset.", "general.tags", "general.languages",
        ),
        LABEL,
    ),
    **dict.fromkeys(
        (
            "quantize.imatrix.dataset", "quantize.imatrix.entries_count",
            "quantize.imatrix.chunks_count",
        ),
        ROUNDED,
    ),
    "genai_config.json model.decoder.session_options.log_id": "what GenAI calls itself in its log",
    "mlc-chat-config.json model_config.max_batch_size": (
        "how many texts a server writes at a time: its memory, not the model"
    ),
    "mlc-chat-config.json conv_template.name": "a label: the template itself is beside it",
    "webllm-model.json model_list.model": "where a page finds the folder: for who serves it",
    "webllm-model.json model_list.model_id": "what a page calls the model",
    "*.wasm": "a library that the user compiled: compared with the model when it is added",
}  # fmt: skip


def free(place: str) -> Free:
    """The account of a place in the table."""
    return Free(FREE[place])


def free_keys(keys: Iterable[str]) -> dict[str, Free]:
    """Those of a flat document's keys that are free."""
    found = {}
    for key in keys:
        parts = key.split(".")
        begins = (".".join(parts[:end]) + "." for end in range(1, len(parts)))
        place = next((item for item in (key, *begins) if item in FREE), None)
        if place is not None:
            found[key] = free(place)
    return found
