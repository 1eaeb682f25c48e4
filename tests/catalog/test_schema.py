"""The JSON Schema of model files accepts what comes along and catches what :func:`load` catches in names and keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy

import pytest

import rmab_opt as ro
from rmab_opt import registry
from rmab_opt.catalog import model_folder, model_names
from rmab_opt.catalog.files import MODELINE, SCHEMA_FILE, locate
from rmab_opt.catalog.yaml_text import read_yaml
from rmab_opt.errors import ModelError


def faults(schema: dict, value: object, at: str = "") -> list[str]:
    """Faults by the words of the dialect that our schema uses: a second reader where jsonschema is not installed."""
    return list(_faults(schema, value, at, schema))


def _faults(schema, value, at, root):
    if "$ref" in schema:
        yield from _faults(root["definitions"][schema["$ref"].removeprefix("#/definitions/")], value, at, root)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    wanted = schema.get("type")
    if wanted in kinds and not isinstance(value, kinds[wanted]):
        yield f"{at}: no {wanted}"
    if wanted in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield f"{at}: no {wanted}"
    if wanted == "integer" and isinstance(value, float) and value != int(value):
        yield f"{at}: no {wanted}"
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        yield f"{at}: not one of {schema.get('enum', schema.get('const'))}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high or value <= schema.get("exclusiveMinimum", value - 1):
            yield f"{at}: out of range"
    if "anyOf" in schema and all(list(_faults(one, value, at, root)) for one in schema["anyOf"]):
        yield f"{at}: none of anyOf"
    for one in schema.get("allOf", []):
        yield from _faults(one, value, at, root)
    if "if" in schema:
        branch = "else" if list(_faults(schema["if"], value, at, root)) else "then"
        yield from _faults(schema.get(branch, {}), value, at, root)
    if isinstance(value, dict):
        places = schema.get("properties", {})
        yield from (f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            below = places.get(name, schema.get("additionalProperties", True))
            if below is False:
                yield f"{at}.{name}: unknown key"
            elif isinstance(below, dict):
                yield from _faults(below, inner, f"{at}.{name}", root)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for k, inner in enumerate(value):
            yield from _faults(schema["items"], inner, f"{at}.{k}", root)


@pytest.fixture(scope="module")
def schema() -> dict:
    """As it is committed; another test says that it is what the registry makes."""
    return json.loads((model_folder() / SCHEMA_FILE).read_text("utf-8"))


def test_the_committed_schema_is_what_the_verb_writes(tmp_path):
    # In a process of its own: other tests register kinds. The committed one knows all settings, hidden or not.
    out = tmp_path / SCHEMA_FILE
    command = [sys.executable, "-m", "rmab_opt.cli", "schema", "--out", str(out)]
    environment = {
        key: value for key, value in os.environ.items() if key not in (registry.PLUGINS_IN, registry.HIDDEN_BY)
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert MODELINE + SCHEMA_FILE in done.stdout
    assert out.read_text("utf-8") == (model_folder() / SCHEMA_FILE).read_text("utf-8"), "run rmab-opt schema --out"


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_model_names_the_schema_and_is_valid(name, schema):
    path = locate(name)
    first = path.read_text("utf-8").partition("\n")[0]
    assert first.startswith(MODELINE)
    assert (path.parent / first.removeprefix(MODELINE)).resolve() == (model_folder() / SCHEMA_FILE).resolve()
    content, _ = read_yaml(path)
    assert faults(schema, content) == []
    try:
        from jsonschema import Draft7Validator
    except ImportError:
        return
    Draft7Validator.check_schema(schema)
    assert list(Draft7Validator(schema).iter_errors(content)) == []


SLIPS = [
    (("solvr",), "quick"),
    (("problem", "horizn"), 3),
    (("problem", "dynamics", "fil"), "transitions.csv"),
    (("problem", "dynamics", "kind"), "tabulr"),
    (("constraints", "roster", "visits"), "one"),
    (("constraints", "weekly", "at_mots"), 3),
    (("constraints", "weekly", "kind"), "budgt"),
    (("objective",), {"kind": "imediate"}),
    (("columns",), "arm"),
    (("train", "episods"), 3),
    (("train", "learning_rate"), 1000.0),
    (("train", "target"), "hard"),
    (("check", "optimun"), 3.0),
    (("format",), 2),
    (("problem", "discount"), 1.5),
]


@pytest.mark.parametrize(("place", "value"), SLIPS, ids=[".".join(place) for place, _ in SLIPS])
def test_a_slip_is_caught_by_the_schema_and_by_reading(place, value, schema, tmp_path):
    content, _ = read_yaml(locate("weekly_calls"))
    content = deepcopy(content)
    assert faults(schema, content) == []
    here = content
    for part in place[:-1]:
        here = here.setdefault(part, {})
    here[place[-1]] = value
    found = faults(schema, content)
    assert found
    assert any(place[-1] in fault or ".".join(place[:-1]) in fault for fault in found)
    if "jsonschema" in sys.modules:
        assert list(sys.modules["jsonschema"].Draft7Validator(schema).iter_errors(content))
    for table in locate("weekly_calls").parent.glob("*.csv"):
        (tmp_path / table.name).write_bytes(table.read_bytes())
    (tmp_path / "model.yaml").write_text(json.dumps(content))
    with pytest.raises(ModelError):
        ro.load(tmp_path / "model.yaml")


def test_a_domain_is_checked_by_its_own_arguments(schema):
    content, _ = read_yaml(locate("budget"))
    assert faults(schema, {**content, "problem": {**content["problem"], "n_arm": 3}}) == [".problem.n_arm: unknown key"]
    assert faults(schema, {**content, "problem": {**content["problem"], "domain": "budgt"}})


def test_what_an_editor_shows_says_what_a_key_is(schema):
    said = schema["definitions"]["constraint linear"]
    assert said["description"]
    assert all("description" in place for name, place in said["properties"].items() if name != "kind")
