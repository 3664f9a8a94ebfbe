"""A repository's model card: the source card's facts, what was measured, and how to use the files.

Front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproof.artifact import ModelIdentity
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.origin import HUB_ID, recorded_base
from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.display import markdown_row, markdown_text, megabytes, number
from edgeproof.errors import InputError
from edgeproof.files.hashing import file_sha256
from edgeproof.verdicts import Interval, ParityReport, ShortRun, TaskScore, scores_of
from edgeproof.verdicts.task_table import EXPLAINED, cells, run_text
from edgeproof.verdicts.task_table import TITLES as TASK_TITLES
from export.checkpoint.merge_record import MERGE_RECORD, MergeRecord, read_merge_record
from export.checkpoint.model_card import MODEL_CARD, read_model_card
from export.formats import load_format
from export.publication import Publication, Released, Repository, recommended

if TYPE_CHECKING:
    from jinja2 import Environment

# Kept as the source card has them. What is of the original only (model-index, widget …) is not.
KEPT = ("license", "license_name", "license_link", "language", "datasets", "metrics")
TEXT_GENERATION = "text-generation"
TITLES = (
    "variant", "MB", "bits/weight", "mean KL", "95 %", "top-1 %", "clear flips", "accept %",
    "ran in", "verdict",
)  # fmt: skip
MISSING = "–"
WARNINGS = {
    "DEGRADED": "It works, but misses a gate of its precision",
    "INCONCLUSIVE": "It works; whether it meets the gates of its precision is not decided",
}


@dataclass(frozen=True)
class SourceCard:
    """The facts of the checkpoint's own card, and what the card must name as its source.

    `merged` is what a checkpoint with adapters was made of.
    """

    facts: dict[str, Any]
    model: ModelIdentity
    merged: MergeRecord | None = None

    @property
    def hub_repo(self) -> str | None:
        """The hub repository that was exported, if it is one."""
        repo = self.model.repo
        return repo if repo and HUB_ID.fullmatch(repo) else None

    @property
    def base_model(self) -> Any:
        """What was exported, or, where that is on no hub, what it was made from itself."""
        return self.hub_repo or self.facts.get("base_model")

    @property
    def license(self) -> Any:
        """As the source card has it; None where it does not say."""
        return self.facts.get("license")


def source_card(model: ModelIdentity, checkpoint: Path) -> SourceCard:
    """The card that the artifacts were exported with, from the checkpoint's folder.

    Raises:
        InputError: it is no longer there, or another one.
    """
    recorded = {item.path: item.sha256 for item in model.inputs}
    base = _base(checkpoint / CONFIG, recorded.get(CONFIG))
    facts = {"base_model": base} if base else {}
    merged = None
    if MERGE_RECORD in recorded:
        _check_recorded(checkpoint / MERGE_RECORD, recorded[MERGE_RECORD])
        merged = read_merge_record(checkpoint)
    if MODEL_CARD not in recorded:
        return SourceCard(facts, model, merged)
    _check_recorded(checkpoint / MODEL_CARD, recorded[MODEL_CARD])
    return SourceCard({**facts, **read_model_card(checkpoint)}, model, merged)


def _check_recorded(path: Path, sha256: str) -> None:
    if not path.is_file() or file_sha256(path) != sha256:
        raise InputError(f"{path}: not the one that was exported; --checkpoint names its folder")


def _base(path: Path, recorded: str | None) -> str | None:
    """The model that config.json was loaded from, where that is the one that was exported."""
    if not path.is_file() or file_sha256(path) != recorded:
        return None
    return recorded_base(read_json(path))


def model_card(
    repository: Repository,
    source: SourceCard,
    report: ParityReport,
    namespace: str,
    short_runs: Sequence[ShortRun] = (),
    scores: Sequence[TaskScore] = (),
) -> bytes:
    """README.md of a repository; `namespace` is whose it is on the hub, for the examples.

    `short_runs` are of its exports in further places, `scores` in tasks, and of others.
    """
    from huggingface_hub import ModelCardData

    publication = load_format(repository.format).publication
    best = recommended(repository.released)
    named = filter(publication.file.fullmatch, repository.own[best.compared.variant])
    facts: dict[str, Any] = {
        **{key: source.facts[key] for key in KEPT if key in source.facts},
        "base_model": source.base_model,
        "base_model_relation": "quantized" if source.base_model else None,
        "library_name": publication.library,
        "pipeline_tag": source.facts.get("pipeline_tag", TEXT_GENERATION),
        "tags": _tags(publication, source),
    }
    front_matter = ModelCardData(**facts, ignore_metadata_errors=True).to_yaml()
    body = (
        _templates()
        .get_template("card.md.j2")
        .render(
            repository=repository,
            hub_id=f"{namespace}/{repository.name}",
            title=publication.title,
            source=source,
            table=measured_table(repository.released),
            unseen=unseen(repository.released, short_runs),
            elsewhere=ran_elsewhere(repository.released, short_runs),
            tasks=tasks_table(repository.released, scores),
            tasks_run=run_text(_asked(repository.released, scores)),
            tasks_explained=EXPLAINED,
            best=best,
            recovered=[item for item in repository.released if item.compared.recovered],
            file=next(named, None),
            degraded=[item for item in repository.released if not item.passed],
            report=report,
            warnings=WARNINGS,
            usage=_templates().from_string(publication.usage()),
        )
    )
    return f"---\n{front_matter}\n---\n\n{body}".encode()


def measured_table(released: Sequence[Released]) -> str:
    """Size, bits per weight, KL with its interval, shares, where it ran, verdict: Markdown."""
    rows = [TITLES, ("---", *["---:"] * (len(TITLES) - 3), "---", "---")]
    return "\n".join(markdown_row(row) for row in [*rows, *map(_cells, released)])


def tasks_table(released: Sequence[Released], scores: Sequence[TaskScore]) -> str:
    """Scores in tasks of these very bytes, in Markdown; empty where there are none."""
    found = _asked(released, scores)
    if not found:
        return ""
    kl = {item.compared.manifest: item.compared.metrics.get("mean_kl") for item in released}
    measured = ((score, kl[score.manifest]) for score in found)
    rows = [cells(score, mean.value if mean else None) for score, mean in measured]
    text = [map(markdown_text, row) for row in rows]
    return "\n".join(map(markdown_row, [TASK_TITLES, ["---"] * len(TASK_TITLES), *text]))


def _asked(released: Sequence[Released], scores: Sequence[TaskScore]) -> list[TaskScore]:
    return scores_of(scores, [item.compared.manifest for item in released])


def _cells(item: Released) -> Iterable[str]:
    metrics = item.compared.metrics
    kl = metrics.get("mean_kl", Interval(None, None, None))
    yield f"`{item.compared.variant}`"
    yield megabytes(item.bytes)
    yield f"{item.artifact.manifest.effective_bpw:.2f}"
    yield _shown(kl.value)
    yield f"{_shown(kl.low)}–{_shown(kl.high)}"
    yield _per_cent(metrics.get("top1"))
    clear = metrics.get("clear_top1")
    yield (clear and clear.errors) or MISSING
    yield _per_cent(metrics.get("acceptance"))
    yield markdown_text(", ".join(filter(None, (item.compared.ran, item.compared.activations))))
    part = item.compared.part
    yield f"**{item.compared.verdict}**" + (f", n = {part:,}" if part is not None else "")


def unseen(
    released: Sequence[Released], short_runs: Sequence[ShortRun] = ()
) -> dict[str, list[str]]:
    """What neither comparison nor short runs show, in words, and the variants of which not."""
    found: dict[str, list[str]] = {}
    for item in released:
        answered = {run.unseen for run in _of(item, short_runs)}
        for text in item.compared.unseen:
            if text not in answered:
                found.setdefault(text, []).append(item.compared.variant)
    return found


def ran_elsewhere(
    released: Sequence[Released], short_runs: Sequence[ShortRun]
) -> list[tuple[str, ShortRun]]:
    """The short runs of these very bytes, by variant."""
    return [(item.compared.variant, run) for item in released for run in _of(item, short_runs)]


def _of(item: Released, short_runs: Sequence[ShortRun]) -> list[ShortRun]:
    return [run for run in short_runs if run.manifest == item.compared.manifest]


def _per_cent(share: Interval | None) -> str:
    return MISSING if share is None or share.value is None else f"{share.value * 100:.1f}"


def _shown(value: float | None) -> str:
    return MISSING if value is None else number(value)


def _tags(publication: Publication, source: SourceCard) -> list[str]:
    own = source.facts.get("tags") or []
    given = [own] if isinstance(own, str) else [tag for tag in own if isinstance(tag, str)]
    return list(dict.fromkeys((*publication.tags, "edgeproof", *given)))


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown: nothing is escaped by itself; the templates send foreign text through `plain`.
    environment = Environment(
        loader=PackageLoader("export.release"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = markdown_text
    environment.filters["mb"] = megabytes
    return environment
