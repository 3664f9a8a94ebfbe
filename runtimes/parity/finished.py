"""What was found of artifacts before a run ended over another one: nothing is compared twice.

Where it lies, its user says: beside the journal of the command that watches a run, for crashes; in
the cache, for Ctrl-C (`unfinished`).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.files.cache import keep
from edgeproof.files.own import WrongJsonError, typed
from runtimes.parity.bench import Keep
from runtimes.parity.divergence import ARRAYS, PositionMetrics
from runtimes.parity.exact_json import from_exact, to_exact
from runtimes.parity.localise import Weighed
from runtimes.parity.measure import Measurement
from runtimes.parity.verdict import Judgement

FOUND, METRICS = ".json", ".npz"
FURTHER = "further/"
# What reading a damaged file may raise.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, WrongJsonError)


@dataclass(frozen=True)
class Compared:
    """What came of an artifact, before it is said where it breaks."""

    judgement: Judgement
    measurement: Measurement | None = None
    weighed: Weighed | None = None


class Finished:
    """Comparisons of one command, in a folder; without one, each is made anew.

    The folder is only of one text, extent, machine and version of all that compares. What could not
    be measured is tried again, and an artifact whose files are not its manifest's any more.

    `keep` is told the metrics of each artifact, also of those that another process has compared.
    """

    def __init__(self, folder: Path | None, keep: Keep | None) -> None:
        self._folder, self._keep = folder, keep
        self._counted: dict[Path, Sequence[PositionMetrics]] = {}

    def counted(self, artifact: Artifact, metrics: Sequence[PositionMetrics]) -> None:
        """A `Keep`: the metrics of the artifact that is being compared."""
        if self._folder is not None:
            self._counted[artifact.subject] = metrics
        if self._keep is not None:
            self._keep(artifact, metrics)

    def once(
        self, artifact: Artifact, runtime: str | None, compare: Callable[[], Compared]
    ) -> Compared:
        """What was found of it in a runtime, or what `compare` finds."""
        if self._folder is None:
            return compare()
        what = f"{artifact.subject}\n{artifact.sha256}\n{runtime}"
        place = self._folder / hashlib.sha256(what.encode()).hexdigest()
        known = _read(place)
        if known is None or not _sound(artifact):
            found = compare()
            if found.measurement is not None:
                _write(place, found, self._counted.pop(artifact.subject, ()))
            return found
        found, metrics = known
        if self._keep is not None:
            self._keep(artifact, metrics)
        return found


def _sound(artifact: Artifact) -> bool:
    try:
        artifact.check()
    except InputError:
        return False
    return True


def _write(place: Path, found: Compared, metrics: Sequence[PositionMetrics]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **dict(_named(metrics)))  # type: ignore[arg-type]
    keep(place.with_suffix(METRICS), buffer.getvalue())
    keep(place.with_suffix(FOUND), to_exact(asdict(found)).encode())


def _read(place: Path) -> tuple[Compared, list[PositionMetrics]] | None:
    """None where nothing was found, or what is there is damaged or in part removed."""
    try:
        found = typed(Compared, from_exact(place.with_suffix(FOUND).read_bytes()))
        with np.load(place.with_suffix(METRICS), allow_pickle=False) as stored:
            return found, _documents({key: stored[key] for key in stored.files})
    except DAMAGE:
        return None


def _named(documents: Sequence[PositionMetrics]) -> Iterator[tuple[str, np.ndarray]]:
    for number, metrics in enumerate(documents):
        for name in ARRAYS:
            yield f"{number}/{name}", getattr(metrics, name)
        for name, values in metrics.further.items():
            yield f"{number}/{FURTHER}{name}", values


def _documents(named: Mapping[str, np.ndarray]) -> list[PositionMetrics]:
    found: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
    for key, values in named.items():
        number, _, name = key.partition("/")
        found[int(number)][name] = values
    return [
        PositionMetrics(
            **{name: arrays.pop(name) for name in ARRAYS},
            further={name.removeprefix(FURTHER): values for name, values in arrays.items()},
        )
        for _, arrays in sorted(found.items())
    ]
