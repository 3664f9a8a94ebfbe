"""What an artifact's files say, key by key, against what the checkpoint implies: no key unchecked.

Which keys there are, and what each has to be, the format's reader says (`Reader.contents`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from edgeproof.artifact import MANIFEST, Artifact
from edgeproof.errors import InputError
from runtimes.contents import Content, Difference, Origin, Topic, differences
from runtimes.formats import reader_of
from runtimes.parity.localise.result import Cause, Finding

SHOWN = 4
# What files end with that libraries look for, whatever else a folder has.
READ_UNASKED = {".bin", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
# The damage that a file written by others can do to a reader.
MALFORMED = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration)


def compare_contents(
    artifact: Artifact, checkpoint: Path, known: Collection[str] = ()
) -> tuple[Finding, ...]:
    """A finding for each file and topic that something is wrong with; the first key is named.

    `known` are keys that are found wrong already.

    Raises:
        InputError: a file cannot be read, or is malformed.
    """
    listed = [item.path for item in artifact.manifest.outputs]
    if artifact.foreign is not None:
        wrong, _ = _of_others(artifact, checkpoint)
        return tuple(f for content, these in wrong for f in _summed(content, these, known))
    contents = _contents(artifact, checkpoint)
    accounted = {content.file for content in contents}
    found = [finding for content in contents for finding in _findings(content, listed, known)]
    strange = [path for path in listed if path not in accounted]
    strange += _unlisted(artifact, listed)
    found += (
        Finding(Cause.METADATA, f"{path}: nothing accounts for this file", key=path)
        for path in strange
    )
    return tuple(found)


def _unlisted(artifact: Artifact, listed: Collection[str]) -> Iterator[str]:
    """Files that the manifest has not, and that a library may read which is given the folder.

    mlx_lm loads every model*.safetensors, transformers an adapter_config.json or a template.
    """
    kinds = READ_UNASKED | {PurePosixPath(path).suffix for path in listed}
    for path in sorted(artifact.path.rglob("*")):
        name = path.relative_to(artifact.path).as_posix()
        if path.suffix in kinds and name not in (*listed, MANIFEST) and path.is_file():
            yield name


def told_otherwise(artifact: Artifact, checkpoint: Path) -> list[str]:
    """Of files that others made, what they say otherwise than ours would and may: a line at most.

    Raises:
        InputError: a file cannot be read.
    """
    if artifact.foreign is None:
        return []
    _, notes = _of_others(artifact, checkpoint)
    return notes


def _contents(artifact: Artifact, checkpoint: Path) -> list[Content]:
    vocabulary = artifact.vocabulary
    origin = Origin(checkpoint, vocabulary.common if vocabulary else None)
    try:
        return [*reader_of(artifact).contents(artifact, origin)]
    except MALFORMED as error:
        text = f"what its files say cannot be read ({type(error).__name__}: {error})"
        raise InputError(f"{artifact.path}: {text}") from None


def _of_others(
    artifact: Artifact, checkpoint: Path
) -> tuple[list[tuple[Content, list[Difference]]], list[str]]:
    """What contradicts the checkpoint where others may not, by file, and what else is not as ours.

    Files that we would write and they have not are none of it: they are inspected.
    """
    try:
        contents = [c for c in _contents(artifact, checkpoint) if c.said is not None]
    except InputError as error:
        return [], [f"its files were not compared key by key: {error}"]
    wrong, others = [], []
    for content in contents:
        found = [*differences(content.said, content.expected)]
        bound = [d for d in found if d.contradicts and d.key.startswith(content.binding)]
        wrong.append((content, bound))
        others += [d for d in found if d not in bound]
    if not others:
        return wrong, []
    keys: dict[str, Difference] = {}
    for difference in others:  # of a list, the first entry
        keys.setdefault(difference.key.partition("[")[0], difference)
    shown = ", ".join(f"{d.key} {d.found}" for d in [*keys.values()][:SHOWN])
    more = f" and {len(keys) - SHOWN} keys more" if len(keys) > SHOWN else ""
    return wrong, [f"says otherwise than edgeproof would, and may: {shown}{more}"]


def _findings(
    content: Content, listed: Collection[str], known: Collection[str]
) -> Iterator[Finding]:
    if content.file not in (*listed, MANIFEST):
        yield Finding(Cause.METADATA, f"{content.file} is missing", key=content.file)
        return
    yield from _summed(content, differences(content.said, content.expected), known)


def _summed(
    content: Content, found: Iterable[Difference], known: Collection[str]
) -> Iterator[Finding]:
    """One finding for each topic."""
    wrong: dict[Topic, list[Difference]] = {}
    for difference in found:
        if not {difference.key, f"{content.file} {difference.key}"} & {*known}:
            wrong.setdefault(content.topic(difference.key), []).append(difference)
    for topic, (first, *others) in wrong.items():
        more = f" (and {len(others)} more)" if others else ""
        key = f"{content.file} {first.key}".strip()
        text = f"{key} is {first.found}, expected {first.expected}{more}"
        yield Finding(Cause(topic.value), text, key=key)
