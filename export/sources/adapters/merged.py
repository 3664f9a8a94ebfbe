"""A base and its adapters as a source: a merged checkpoint in the cache.

Invariant: the checkpoint is named by the hashes of all files of base and adapters and the weights;
it is written once, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.checkpoints.tokenizer import TOKENIZER, tokenizer_files
from edgeproof.checkpoints.weight_files import SINGLE
from edgeproof.files.atomic import write_atomic
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, input_records
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.merge_record import MergedAdapter, MergedPart, MergeRecord
from export.checkpoint.model_card import MODEL_CARD, read_model_card
from export.checkpoint.safetensors_writer import write_safetensors
from export.sources.adapters.base import check_base
from export.sources.adapters.binding import Adapter, open_adapter
from export.sources.adapters.card import licence_of, merged_card
from export.sources.adapters.merging import plan_merge
from export.sources.adapters.place import Place, find_adapter
from export.sources.adapters.request import AdapterRequest
from export.sources.adapters.tensors import WEIGHTS
from export.sources.adapters.tokenizer import check_fits, tokenizer_of
from export.sources.checkpoint_cache import cached
from export.sources.source import Source

# Raise it when the merged bytes change.
MERGE = 1


def resolve_merged(base: Source, requests: Sequence[AdapterRequest]) -> Source:
    """The checkpoint of a base with adapters merged into it, in their order, in the cache.

    It has a name where all of them have one, and no repository or revision: it is on no hub.

    Raises:
        InputError: a bad base or adapter, one that does not fit the other, or a full disk.
    """
    checkpoint = open_checkpoint(base.path)
    places = [find_adapter(request.id) for request in requests]
    opened = [
        open_adapter(place.folder, request.weight)
        for place, request in zip(places, requests, strict=True)
    ]
    for adapter in opened:
        check_base(base, adapter.config)
    record = _record(base, checkpoint, places, opened)

    def write(folder: Path) -> None:
        _write(folder, checkpoint, opened, record)

    steps = [
        f"{place.label}-x{request.weight:g}" if request.weight != 1 else place.label
        for place, request in zip(places, requests, strict=True)
    ]
    label = "+".join((base.label, *steps))
    made = cached(label, [MERGE, asdict(record)], write)
    names = [base.name, *(place.name for place in places)]
    name = "-".join(filter(None, names)) if all(names) else None
    return Source(made.path, label, name)


def _write(
    folder: Path, checkpoint: Checkpoint, adapters: Sequence[Adapter], record: MergeRecord
) -> None:
    merge = plan_merge(checkpoint, adapters)
    files = tokenizer_of(checkpoint, [adapter.folder for adapter in adapters])
    rows = merge.config["vocab_size"]
    if files[TOKENIZER].parent != checkpoint.path or rows != checkpoint.config.vocab:
        check_fits(files, rows, adapters[-1].folder)
    config = json.dumps(merge.config, ensure_ascii=False, indent=1) + "\n"
    write_atomic(folder / CONFIG, config.encode())
    for name, path in files.items():
        write_atomic(folder / name, path.read_bytes())
    cards = [read_model_card(adapter.folder) for adapter in adapters]
    write_atomic(folder / MODEL_CARD, merged_card(record, read_model_card(checkpoint.path), cards))
    record.save(folder)
    write_safetensors(folder / SINGLE, merge.planned, merge.blocks)


def _record(
    base: Source, checkpoint: Checkpoint, places: Sequence[Place], adapters: Sequence[Adapter]
) -> MergeRecord:
    return MergeRecord(
        MergedPart(
            base.name,
            base.repo,
            base.revision,
            licence_of(read_model_card(base.path)),
            _hashes(checkpoint.input_files),
        ),
        tuple(
            MergedAdapter(
                place.name,
                place.repo,
                place.revision,
                licence_of(read_model_card(place.folder)),
                _hashes(_files(place.folder)),
                adapter.weight,
            )
            for place, adapter in zip(places, adapters, strict=True)
        ),
    )


def _files(folder: Path) -> list[Path]:
    """What of an adapter decides the merged checkpoint; its weights last."""
    tokenizer = tokenizer_files(folder) if (folder / TOKENIZER).is_file() else ()
    names = ("adapter_config.json", *tokenizer, MODEL_CARD, WEIGHTS)
    return [folder / name for name in names if (folder / name).is_file()]


def _hashes(files: Sequence[Path]) -> tuple[OutputFile, ...]:
    return input_records(files, cache_folder() / "digests")
