"""Where model files are, and copying one to change it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rmab_opt import registry
from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest
from rmab_opt.records import write_atomically

__all__ = ["MODELINE", "SCHEMA_FILE", "copy_model", "locate", "model_folder", "model_names"]

SCHEMA_FILE = "schema.json"
"""Name of the JSON Schema beside model files."""

MODELINE = "# yaml-language-server: $schema="
"""How a YAML file names its schema to an editor, in its first line."""


def model_folder() -> Path:
    """Folder of the shipped models: inside the installed package, else beside the source tree."""
    packaged = Path(str(files("rmab_opt"))) / "models"
    return packaged if packaged.is_dir() else Path(str(files("rmab_opt"))).parent / "models"


def model_names() -> list[str]:
    """Names of the shipped models, and of those of plugins and settings from elsewhere."""
    return sorted(_models())


def _models() -> dict[str, Path]:
    """Model files by name.

    Raises
    ------
    ModelError
        When two folders have a model of one name.
    """
    found: dict[str, Path] = {}
    for folder in [model_folder(), *registry.model_folders()]:
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*/model.yaml")]):
            name = path.parent.name if path.name == "model.yaml" and path.parent != folder else path.stem
            if name in found:
                raise ModelError(f"model {name!r} is in {found[name]} and in {path}", "rename one of them.")
            found[name] = path
    return found


def locate(name: str | Path) -> Path:
    """The file of a model given by name, by path or by its folder.

    A text without a slash is a shipped model's name before it is a folder here; a ``Path`` is a folder first.

    Raises
    ------
    ModelError
        When there is none; names the nearest.
    """
    if isinstance(name, str) and not name.strip():
        # An unset variable of a shell: the folder one happens to stand in is not meant.
        raise ModelError("the model has an empty name", "give a name or a path, `.` for this folder.")
    path = Path(name)
    is_folder = isinstance(name, Path) and _holds_model(path)
    if is_folder or path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        try:
            path = path / "model.yaml" if path.is_dir() else path
            found = path.is_file()
        except (OSError, ValueError):
            found = False
        if not found:
            raise ModelError(f"{path}: no such model file", "check the path, or see `rmab-opt models`.")
        return path
    known = _models()
    if str(name) not in known:
        if _holds_model(path):
            return path / "model.yaml"
        raise ModelError(f"no model {str(name)!r}", nearest(str(name), list(known)))
    return known[str(name)]


def _holds_model(path: Path) -> bool:
    try:
        return (path / "model.yaml").is_file()
    except (OSError, ValueError):
        return False


def copy_model(name: str, folder: str | Path) -> list[Path]:
    """Copy a shipped model with its tables, and the schema it names, into a new folder; the model file comes first.

    A shipped folder of sheets (``weekly_calls_sheets``), from which a model can be estimated, is copied as it is.

    Raises
    ------
    ModelError
        When the folder holds something already.
    """
    folder, sheets = Path(folder), model_folder() / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is not empty", "name a new folder.")
    if sheets.parent == model_folder() and sheets.is_dir() and not (sheets / "model.yaml").exists():
        content = {sheet.name: sheet.read_bytes() for sheet in sorted(sheets.glob("*.csv"))}
        return _written(folder, content)
    source = locate(name)
    tables = sorted(source.parent.glob("*.csv")) if source.name == "model.yaml" else []
    content = {"model.yaml": source.read_bytes(), **{table.name: table.read_bytes() for table in tables}}
    first, _, rest = content["model.yaml"].partition(b"\n")
    schema = source.parent / first.decode("utf-8", "replace").removeprefix(MODELINE).strip()
    if first.startswith(MODELINE.encode()) and schema.is_file():
        content["model.yaml"] = f"{MODELINE}{SCHEMA_FILE}\n".encode() + rest
        content[SCHEMA_FILE] = schema.read_bytes()
    return _written(folder, content)


def _written(folder: Path, content: dict[str, bytes]) -> list[Path]:
    for file, text in content.items():
        write_atomically(folder / file, text)
    return [folder / file for file in content]
