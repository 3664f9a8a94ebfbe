"""What an artifact's files say, key by key, against what the checkpoint implies: no key unchecked.

Which keys there are, and what each has to be, the format's reader says (`Reader.contents`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.contents import Content, Difference, Origin, Topic, differences
from runtimes.formats import reader_of
from runtimes.parity.localise.result import Cause, Finding

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
    try:
        contents = [*reader_of(artifact).contents(artifact, Origin(checkpoint))]
    except MALFORMED as error:
        text = f"what its files say cannot be read ({type(error).__name__}: {error})"
        raise InputError(f"{artifact.path}: {text}") from None
    accounted = {content.file for content in contents}
    found = [finding for content in contents for finding in _findings(content, listed, known)]
    strange = (path for path in listed if path not in accounted)
    found += (
        Finding(Cause.METADATA, f"{path}: nothing accounts for this file", key=path)
        for path in strange
    )
    return tuple(found)


def _findings(
    content: Content, listed: Collection[str], known: Collection[str]
) -> Iterator[Finding]:
    if content.file not in listed:
        yield Finding(Cause.METADATA, f"{content.file} is missing", key=content.file)
        return
    wrong: dict[Topic, list[Difference]] = {}
    for difference in differences(content.said, content.expected):
        if not {difference.key, f"{content.file} {difference.key}"} & {*known}:
            wrong.setdefault(content.topic(difference.key), []).append(difference)
    for topic, (first, *others) in wrong.items():
        more = f" (and {len(others)} more)" if others else ""
        key = f"{content.file} {first.key}".strip()
        text = f"{key} is {first.found}, expected {first.expected}{more}"
        yield Finding(Cause(topic.value), text, key=key)
