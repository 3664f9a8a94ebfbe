"""What docs/reference says of plans is what the reader of plans takes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from edgeproof.artifact import Precision
from edgeproof.verdicts.limits import METRICS
from export.plan.plan import MODEL_KEYS, PLAN_KEYS, RUNTIME_CLASSES, VARIANT_KEYS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_every_key_class_and_metric_of_a_plan_is_named() -> None:
    text = (DOCS / "reference" / "plans.md").read_text("utf-8")
    classes = {item.value for item in Precision}
    for name in {*MODEL_KEYS, *VARIANT_KEYS, *METRICS, *classes, *RUNTIME_CLASSES}:
        assert f"`{name}`" in text, name
    assert all(key in text for key in PLAN_KEYS)


def test_every_page_is_in_the_site() -> None:
    class Loader(yaml.SafeLoader):
        """MkDocs' own file has tags that only it knows."""

    Loader.add_multi_constructor("!", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)
    pages = set(re.findall(r"[\w/-]+\.md", str(settings["nav"])))
    assert pages == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
