"""JSON Schema (draft 2020-12) of a dataclass: what `dataclasses.asdict` makes of it, as JSON.

Every field is required and nothing else is allowed. A class's description is the first paragraph of
its docstring, a field's the string that stands below it. Counts are integers, so none is below
zero.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from runtimes.parity.fields import Keywords

Schema = dict[str, Any]
PLAIN: Mapping[type, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number"},
}


class Definitions:
    """Schemas of dataclasses, each defined once under its name in `found` and referred to."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self._classes: dict[str, type] = {}

    def of(self, annotation: Any) -> Schema:
        """The schema of a type.

        Raises:
            TypeError: it has none, or two classes share a name.
        """
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._annotated(*arguments)
        if origin in (Union, UnionType) and len(arguments) == 2 and arguments[1] is NoneType:
            return _or_null(self.of(arguments[0]))
        if origin is tuple and arguments[1:] == (...,):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict and arguments[0] is str:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if isinstance(annotation, type):
            return self._of_class(annotation)
        raise TypeError(f"no JSON schema for {annotation}")

    def object_of(self, cls: type) -> Schema:
        """The schema of a dataclass itself, not a reference to it."""
        types, texts = get_type_hints(cls, include_extras=True), field_texts(cls)
        properties = {}
        for field in fields(cls):
            text = {"description": texts[field.name]} if field.name in texts else {}
            properties[field.name] = {**text, **self.of(types[field.name])}
        return {
            "description": _joined((inspect.getdoc(cls) or "").partition("\n\n")[0]),
            "type": "object",
            "additionalProperties": False,
            "required": [*properties],
            "properties": properties,
        }

    def _of_class(self, cls: type) -> Schema:
        if cls in PLAIN:
            return dict(PLAIN[cls])
        if issubclass(cls, Enum):
            return {"enum": [item.value for item in cls]}
        if is_dataclass(cls):
            return self._reference(cls)
        raise TypeError(f"no JSON schema for {cls}")

    def _annotated(self, annotation: Any, *extras: object) -> Schema:
        schema = self.of(annotation)
        for extra in extras:
            if isinstance(extra, Keywords):
                schema |= extra.keywords
        return schema

    def _reference(self, cls: type) -> Schema:
        name = cls.__name__
        if self._classes.setdefault(name, cls) is not cls:
            raise TypeError(f"two classes are called {name}: {cls} and {self._classes[name]}")
        if name not in self.found:
            self.found[name] = {}  # its place, and the end where it refers to itself
            self.found[name] = self.object_of(cls)
        return {"$ref": f"#/$defs/{name}"}


def field_texts(cls: type) -> dict[str, str]:
    """What stands as a string below fields of a class, by the field's name."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = _joined(text)
    return texts


def _or_null(schema: Schema) -> Schema:
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str) and schema["type"] not in ("array", "object"):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _joined(text: str) -> str:
    """A docstring as one line."""
    return " ".join(text.split())
