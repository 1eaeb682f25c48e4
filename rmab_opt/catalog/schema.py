"""A JSON Schema of model files, from what is registered: an editor completes and checks while one types."""

from __future__ import annotations

import ast
import inspect
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema

from rmab_opt import registry
from rmab_opt.catalog.reading import ModelFile, ProblemSection

__all__ = ["model_schema", "schema_text"]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The dialect that editors' YAML servers read."""

FIELDS = "#/definitions/"


class _Generator(GenerateJsonSchema):
    """Types that JSON does not know (a table read from a file) take anything here; reading judges them."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def model_schema() -> dict[str, Any]:
    """JSON Schema of a model file with everything that is registered, plugins included.

    It knows names, keys and types; what files hold and what values mean together, :func:`~rmab_opt.catalog.load` says.
    """
    made = {
        (kind, entry.name): entry
        for kind in ("constraint", "domain", "dynamics", "objective")
        for entry in registry.entries(kind)
    }
    classes: list[type[BaseModel]] = [ModelFile, ProblemSection, *(entry.schema for entry in made.values())]
    placed, shared = models_json_schema(
        [(found, "validation") for found in dict.fromkeys(classes)],
        ref_template=f"{FIELDS}{{model}}",
        schema_generator=_Generator,
    )
    definitions: dict[str, Any] = shared.get("$defs", {})

    def of(found: type[BaseModel]) -> dict[str, Any]:
        name = placed[(found, "validation")]["$ref"].removeprefix(FIELDS)
        return _explained(json.loads(json.dumps(definitions[name])), found)

    top, tables = of(ModelFile), of(ProblemSection)
    for (kind, name), entry in made.items():
        key = "domain" if kind == "domain" else "kind"
        section = {**of(entry.schema), "title": name, "description": entry.line}
        section["properties"] = {key: {"const": name}, **section.get("properties", {})}
        definitions[f"{kind} {name}"] = section
    for kind in ("constraint", "dynamics", "objective"):
        definitions[kind] = _by_name(kind, "kind", [name for of_kind, name in made if of_kind == kind])
    tables["properties"]["dynamics"] = {"$ref": f"{FIELDS}dynamics"}
    definitions["problem from tables"] = tables
    domain = _by_name("domain", "domain", [name for of_kind, name in made if of_kind == "domain"])
    places = top["properties"]
    places["problem"] = {
        "if": {"required": ["domain"]},
        "then": domain,
        "else": {"$ref": f"{FIELDS}problem from tables"},
    }
    places["constraints"]["additionalProperties"] = {"$ref": f"{FIELDS}constraint"}
    places["objective"] = {"$ref": f"{FIELDS}objective"}
    places["columns"] = {"enum": registry.names("columns"), "description": "What a decision's entries are."}
    places |= {entry.name: _section(entry, definitions) for entry in registry.entries("section")}
    return {"$schema": DIALECT, **_finite(top), "title": "rmab-opt model file", "definitions": _finite(definitions)}


def schema_text() -> str:
    """:func:`model_schema` as the text of a file."""
    return json.dumps(model_schema(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _by_name(kind: str, key: str, names: list[str]) -> dict[str, Any]:
    """A section whose keys depend on what it names; tests of one name each, so that an editor says what is wrong."""
    cases = [
        {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": {"$ref": f"{FIELDS}{kind} {name}"}}
        for name in names
    ]
    return {"type": "object", "required": [key], "properties": {key: {"enum": names}}, "allOf": cases}


def _section(entry: registry.Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    """A further section: the fields of the settings that its maker returns, or any mapping."""
    wanted = inspect.signature(entry.make, eval_str=True).return_annotation
    if not is_dataclass(wanted) or not isinstance(wanted, type):
        return {"type": "object", "description": entry.line}
    found = TypeAdapter(wanted).json_schema(ref_template=f"{FIELDS}{{model}}", schema_generator=_Generator)
    definitions |= found.pop("$defs", {})
    found = _explained(found, wanted)
    for name, (least, most) in getattr(wanted, "ranges", {}).items():
        found["properties"][name] |= {"minimum": least, "maximum": most}
    for name, known in getattr(wanted, "choices", {}).items():
        found["properties"][name] |= {"enum": list(known)}
    presets = getattr(wanted, "presets", {})
    if presets:
        found["properties"]["preset"] = {"enum": list(presets), "description": "A named set of values to begin with."}
    known = {field.name for field in fields(wanted)}
    return {**found, "required": [k for k in found.get("required", []) if k in known], "additionalProperties": False}


def _explained(schema: dict[str, Any], found: type) -> dict[str, Any]:
    """The schema of a class with what stands below its fields in the source."""
    for name, said in _said_of_fields(found):
        if name in schema.get("properties", {}):
            schema["properties"][name].setdefault("description", said)
    return schema


def _said_of_fields(found: type) -> Iterator[tuple[str, str]]:
    """Names of a class's fields with the texts below them; none for classes made without a source."""
    for one in found.__mro__:
        if one.__module__.partition(".")[0] not in ("builtins", "pydantic", "abc"):
            yield from _texts_below(one.__module__).get(one.__qualname__, [])


@cache
def _texts_below(module: str) -> dict[str, list[tuple[str, str]]]:
    """Fields and the texts below them, of the classes of a module, by name; each file is read once."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return {}
    classes = [one for one in ast.parse(Path(file).read_text("utf-8")).body if isinstance(one, ast.ClassDef)]
    return {
        one.name: [
            (field.target.id, " ".join(text.value.value.split()))
            for field, text in zip(one.body, one.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ]
        for one in classes
    }


def _finite(value: Any) -> Any:
    """The same without defaults and limits that JSON cannot write."""
    if isinstance(value, dict):
        return {
            key: _finite(inner) for key, inner in value.items() if not isinstance(inner, float) or math.isfinite(inner)
        }
    return [_finite(inner) for inner in value] if isinstance(value, list) else value
