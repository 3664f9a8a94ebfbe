"""What docs/ says of parity.json is generated from the code, and refuses what is not it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from runtimes.parity.fields import AnyFloat, Keywords
from runtimes.parity.report.json import write_json
from runtimes.parity.report.json_schema import Definitions
from runtimes.parity.report.schema import BEGIN, END, main, schema, schema_text, with_table
from tests.parity_results import usual_result

DOCS = Path(__file__).parent.parent / "docs"
AGAIN = "run `python -m runtimes.parity.report.schema`"
# Whose keys are names, not the schema's.
MAPS = ("versions", "floors", "classes", "types", "estimates", "mean_kl_by_kind", "levels")


def test_the_committed_schema_and_table_are_what_the_code_says() -> None:
    assert (DOCS / "parity.schema.json").read_text("utf-8") == schema_text(), AGAIN
    page = (DOCS / "parity.md").read_text("utf-8")
    assert page == with_table(page, "parity.md"), AGAIN


def test_the_command_brings_both_up_to_date(tmp_path: Path) -> None:
    page = (DOCS / "parity.md").read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    (tmp_path / "parity.md").write_text(f"{before}{BEGIN}{END}{rest.partition(END)[2]}", "utf-8")
    result = CliRunner().invoke(main, ["--docs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "parity.md").read_text("utf-8") == page
    assert (tmp_path / "parity.schema.json").read_text("utf-8") == schema_text()


@pytest.mark.parametrize("page", [None, "no markers\n", f"{END} the wrong way round {BEGIN}\n"])
def test_docs_without_a_place_for_the_table_stay_as_they_are(
    tmp_path: Path, page: str | None
) -> None:
    shutil.copy(DOCS / "parity.schema.json", tmp_path)
    if page is not None:
        (tmp_path / "parity.md").write_text(page)
    (tmp_path / "parity.schema.json").write_text("{}")
    result = CliRunner().invoke(main, ["--docs", str(tmp_path)])
    assert result.exit_code == 2
    assert "parity.md" in result.output
    assert (tmp_path / "parity.schema.json").read_text() == "{}"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("schema") / "parity.json"
    write_json(path, usual_result())
    return json.loads(path.read_text("utf-8"))


Place = tuple[str | int, ...]


def objects(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of all objects in a JSON value."""
    if isinstance(value, dict):
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from objects(item, (*place, key))


def kinds_of_objects(value: Any) -> list[Place]:
    """One place of each kind: those that differ in an index or in a map's key are of one kind."""
    kinds: dict[Place, Place] = {}
    for place in objects(value):
        owners = ("", *place)
        named = (k for o, k in zip(owners, place, strict=False) if o not in MAPS)
        kinds.setdefault(tuple(k for k in named if isinstance(k, str)), place)
    return [*kinds.values()]


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def test_no_key_may_be_missing_or_unknown_anywhere(raw: Any) -> None:
    validator = Draft202012Validator(schema())
    places = kinds_of_objects(raw)
    assert len(places) > 30
    for place in places:
        changed = copy.deepcopy(raw)
        at(changed, place)["unknown"] = []
        assert not validator.is_valid(changed), place
        for key in at(raw, place) if not {*place[-1:]} & {*MAPS} else ():
            changed = copy.deepcopy(raw)
            del at(changed, place)[key]
            assert not validator.is_valid(changed), (*place, key)


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Leaf:
    """A leaf.

    This says more than the schema needs.
    """

    colour: Colour
    veins: Annotated[tuple[int, ...], Keywords(minItems=1)]


@dataclass(frozen=True)
class Tree:
    """A tree."""

    height: float
    """In metres,
    from the ground."""
    weight: AnyFloat
    leaf: Leaf | None
    """Null in winter."""
    fallen: dict[str, Leaf]
    owner: str | None
    colour: Colour | None
    parent: Tree | None = None


def test_a_dataclass_becomes_an_object_with_its_texts() -> None:
    definitions = Definitions()
    assert definitions.of(Tree) == {"$ref": "#/$defs/Tree"}
    leaf = {"$ref": "#/$defs/Leaf"}
    assert definitions.found["Tree"] == {
        "description": "A tree.",
        "type": "object",
        "additionalProperties": False,
        "required": ["height", "weight", "leaf", "fallen", "owner", "colour", "parent"],
        "properties": {
            "height": {"description": "In metres, from the ground.", "type": "number"},
            "weight": {"type": ["number", "null"]},
            "leaf": {"description": "Null in winter.", "anyOf": [leaf, {"type": "null"}]},
            "fallen": {"type": "object", "additionalProperties": leaf},
            "owner": {"type": ["string", "null"]},
            "colour": {"enum": ["red", "blue", None]},
            "parent": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
        },
    }
    assert definitions.found["Leaf"]["description"] == "A leaf."
    assert definitions.found["Leaf"]["properties"]["veins"] == {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 1,
    }


@pytest.mark.parametrize("annotation", [bytes, int | str, tuple[int, str], dict[int, str]])
def test_a_type_without_a_schema_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match="no JSON schema"):
        Definitions().of(annotation)


def test_two_classes_of_one_name_are_refused() -> None:
    definitions = Definitions()
    definitions.of(Leaf)
    with pytest.raises(TypeError, match="two classes are called Leaf"):
        definitions.of(dataclass(type("Leaf", (), {})))
