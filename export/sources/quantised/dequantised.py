"""A quantised checkpoint as a source: one of plain floats, in the cache.

Invariant: it is named by the hashes of all files that were read; it is written once, whole or not
at all.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.checkpoints.tokenizer import tokenizer_files
from edgeproof.checkpoints.weight_files import INDEX, weight_files
from edgeproof.files.atomic import write_atomic
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from edgeproof.files.space import require_space
from edgeproof.quantised import QuantisedRecord
from export.checkpoint.folder import require_tokenizer
from export.checkpoint.model_card import MODEL_CARD
from export.checkpoint.safetensors_writer import write_safetensors
from export.sources.checkpoint_cache import cached
from export.sources.quantised.conversion import Conversion, plan_conversion
from export.sources.source import Source

WEIGHTS = "model.safetensors"
# Raise it when the written bytes change.
CONVERSION = 1

log = logging.getLogger(__name__)


def dequantised(source: Source) -> Source:
    """The source with its weights as floats; itself where they are stored so.

    It keeps name, repository and revision: its values are those of that model.

    Raises:
        InputError: the weights are quantised in a way that is not read, or damaged; a full disk.
    """
    folder = source.path
    conversion = plan_conversion(folder)
    if conversion is None:
        return source
    require_tokenizer(folder)
    reading = conversion.reading
    files = input_records(_inputs(folder), cache_folder() / "digests")
    record = QuantisedRecord(conversion.method, reading.form, len(reading.matrices), files)

    def write(target: Path) -> None:
        _write(target, folder, conversion, record)

    made = cached(source.label, [CONVERSION, asdict(record)], write)
    log.warning("%s: %s", folder, record.said)
    for note in reading.notes:
        log.warning("%s: %s", folder, note)
    return replace(source, path=made.path)


def _inputs(folder: Path) -> list[Path]:
    """Every file that decides the plain checkpoint; its weights last."""
    counted = weight_files(folder)
    index = (INDEX,) if counted.index else ()
    beside = [CONFIG, *tokenizer_files(folder), MODEL_CARD, *index]
    return [folder / name for name in beside if (folder / name).is_file()] + list(counted.paths)


def _write(target: Path, folder: Path, conversion: Conversion, record: QuantisedRecord) -> None:
    planned = conversion.planned
    require_space(target, sum(tensor.nbytes for tensor in planned))
    config = json.dumps(conversion.config, ensure_ascii=False, indent=1) + "\n"
    write_atomic(target / CONFIG, config.encode())
    for name, path in {**tokenizer_files(folder), MODEL_CARD: folder / MODEL_CARD}.items():
        if path.is_file():
            write_atomic(target / name, path.read_bytes())
    record.save(target)
    write_safetensors(target / WEIGHTS, planned, conversion.blocks)
