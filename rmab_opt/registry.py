"""Names of everything that plugs in: one table, filled by the modules that define a kind when it is first asked for.

A thing is registered where it is written, by one decorator over its maker::

    @register("policy", "sampling")
    def sampling(model, *, draws: int = 100): ...

The maker's keyword-only parameters are its arguments: typed, checked and listed from the signature, so that
``sampling``, ``sampling:200`` and ``sampling:draws=200`` are one thing wherever a name is taken. Nothing is imported
before a thing of its kind is asked for. A setting is a package with modules named as in :data:`PARTS`; those that come
with the package stand in ``rmab_opt.settings``, others announce themselves by the entry-point group
``rmab_opt.settings`` or are files named by ``--plugin``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from rmab_opt.errors import ModelError

__all__ = [
    "HIDDEN_BY",
    "PARTS",
    "PLUGINS_IN",
    "Entry",
    "Setting",
    "entries",
    "find",
    "known",
    "load_plugin",
    "make",
    "model_folders",
    "names",
    "need",
    "parse",
    "register",
    "settings",
]


@dataclass(frozen=True)
class Part:
    """Where things of one kind are defined: modules or packages of the kernel, and the module of a setting."""

    homes: tuple[str, ...]
    module: str
    what: str


PARTS: dict[str, Part] = {
    "constraint": Part(("rmab_opt.actions.kinds",), "kinds", "constraint kind"),
    "columns": Part(("rmab_opt.actions.columns",), "kinds", "kind of columns"),
    "dynamics": Part(("rmab_opt.problem.kinds",), "dynamics", "kind of dynamics"),
    "domain": Part(("rmab_opt.instances",), "instances", "domain"),
    "objective": Part(
        ("rmab_opt.decisions.objectives", "rmab_opt.learning.policies"), "objectives", "kind of objective"
    ),
    "policy": Part(("rmab_opt.decisions.policies", "rmab_opt.learning.policies"), "policies", "policy"),
    "rule": Part(("rmab_opt.planning.scores", "rmab_opt.planning.rollout"), "rules", "rule"),
    "network": Part(("rmab_opt.learning.networks",), "networks", "network"),
    "anchor": Part(("rmab_opt.learning.networks",), "networks", "anchor"),
    "run": Part((), "policies", "kind of training run"),
    "section": Part(("rmab_opt.learning.config",), "sections", "section of a model file"),
    "report": Part((), "reports", "report"),
    "verb": Part(("rmab_opt.cli.verbs",), "verbs", "verb"),
}
"""Kinds of things; a setting may have any of the modules named here."""

HIDDEN_BY = "RMAB_OPT_WITHOUT"
"""Environment variable with names of settings that are treated as not installed, separated by commas."""

PLUGINS_IN = "RMAB_OPT_PLUGINS"
"""Environment variable with plugin files, so that worker processes load what ``--plugin`` named."""

GROUP = "rmab_opt.settings"
"""Entry-point group, and the package of the settings that come along."""

Maker = TypeVar("Maker", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered thing."""

    kind: str
    name: str
    make: Callable[..., Any]
    setting: str
    """Name of the setting that brings it; empty for the kernel's own and for code outside any setting."""
    said: str = ""
    hidden: bool = False

    @property
    def line(self) -> str:
        """What it is, in one line."""
        text = self.said or inspect.getdoc(self.make) or ""
        return text.strip().splitlines()[0].rstrip(".") if text.strip() else ""

    @cached_property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """The maker's keyword-only parameters, by name, with evaluated annotations."""
        try:
            found = inspect.signature(self.make, eval_str=True).parameters
        except (NameError, TypeError):
            found = inspect.signature(self.make).parameters
        return {name: p for name, p in found.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @cached_property
    def schema(self) -> Any:
        """A pydantic model of the arguments; the class itself where that is one already (constraint kinds)."""
        from pydantic import BaseModel, ConfigDict, create_model

        if inspect.isclass(self.make) and issubclass(self.make, BaseModel):
            return self.make
        fields: dict[str, Any] = {}
        for name, parameter in self.arguments.items():
            annotation = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (annotation, default)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        return create_model(self.name, __config__=config, **fields)

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the maker takes them; pydantic's ValidationError names what is wrong."""
        # By way of JSON: strict there means that 1 is no text and "1" no number, while a list may be a tuple.
        read = self.schema.model_validate_json(json.dumps(dict(given), default=str), strict=True)
        return {name: getattr(read, name) for name in given}

    def signature(self) -> str:
        """``name`` or ``name:argument=default,...`` as a person would write it."""
        said = []
        for name, parameter in self.arguments.items():
            required = parameter.default is inspect.Parameter.empty
            said.append(f"{name}=..." if required else f"{name}={parameter.default}")
        return f"{self.name}:{','.join(said)}" if said else self.name


@dataclass(frozen=True)
class Setting:
    """A package of things that belong to one idea."""

    name: str
    package: str
    hidden: bool = False

    @property
    def line(self) -> str:
        """The first line of the package's docstring."""
        return (importlib.import_module(self.package).__doc__ or "").strip().splitlines()[0].rstrip(".")

    def part(self, module: str) -> ModuleType | None:
        """A module of the package, or None where it has none of that name."""
        name = f"{self.package}.{module}"
        root = importlib.import_module(self.package)
        if not hasattr(root, "__path__"):
            # A setting of one file: everything is in it.
            return root
        return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


@dataclass
class _Table:
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in PARTS})
    filled: set[str] = field(default_factory=set)
    asked_hidden: set[str] = field(default_factory=set)
    owner: str = ""
    """Setting or plugin whose modules are being imported."""
    hiding: bool = False
    plugins: dict[str, ModuleType] = field(default_factory=dict)


_TABLE = _Table()


def register(kind: str, name: str, *, line: str = "") -> Callable[[Maker], Maker]:
    """Register a maker under a name; as a decorator or called with it.

    Parameters
    ----------
    kind
        One of :data:`PARTS`.
    line
        What it is, in one line; the first line of the maker's docstring by default.

    Raises
    ------
    ModelError
        When the kind is unknown, or the name is taken by something else.
    """
    if kind not in PARTS:
        raise ModelError(f"nothing is registered as {kind!r}", f"use one of {', '.join(PARTS)}.")

    def keep(make: Maker) -> Maker:
        module = getattr(make, "__module__", "") or ""
        owner = module.split(".")[2] if module.startswith(f"{GROUP}.") else _TABLE.owner
        known = _TABLE.entries[kind].get(name)
        if known is not None and not _same(known.make, make) and not known.hidden:
            raise ModelError(
                f"{PARTS[kind].what} {name!r} is taken by {_where(known.make)}",
                "choose another name: a name stands for one thing.",
            )
        _TABLE.entries[kind][name] = Entry(kind, name, make, owner, line, _TABLE.hiding)
        return make

    return keep


def _same(first: Any, second: Any) -> bool:
    """Whether a definition was only run again, as cells of a notebook are."""
    place = (getattr(first, "__module__", None), getattr(first, "__qualname__", None))
    return first is second or (
        place == (getattr(second, "__module__", None), getattr(second, "__qualname__", None)) and None not in place
    )


def _where(make: Any) -> str:
    return f"{getattr(make, '__module__', '?')}.{getattr(make, '__qualname__', make)}"


# ------------------------------------------------------------------------------------------------------------ settings
def settings() -> dict[str, Setting]:
    """All settings by name, hidden ones included."""
    hidden = {name.strip() for name in os.environ.get(HIDDEN_BY, "").split(",") if name.strip()}
    root = importlib.import_module(GROUP)
    found = {
        info.name: Setting(info.name, f"{GROUP}.{info.name}", info.name in hidden)
        for info in pkgutil.iter_modules(root.__path__)
        if info.ispkg
    }
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        found.setdefault(point.name, Setting(point.name, point.value, point.name in hidden))
    for path in os.environ.get(PLUGINS_IN, "").split(os.pathsep):
        if path and path not in _TABLE.plugins:
            load_plugin(path)
    return found


def need(name: str) -> Setting:
    """A setting that a verb or a flag stands on.

    Raises
    ------
    ModelError
        When it is not there.
    """
    found = settings().get(name)
    if found is None or found.hidden:
        raise _missing(name)
    return found


def _missing(name: str) -> ModelError:
    return ModelError(f"needs the setting {name}, which is not installed", f"install it, or unset {HIDDEN_BY}.")


def load_plugin(path: str | Path) -> ModuleType:
    """Import a Python file that registers things; the same file again changes nothing.

    Raises
    ------
    ModelError
        When there is no such file, or it fails; names the file and the reason.
    """
    file = Path(path).resolve()
    known = _TABLE.plugins.get(str(file))
    if known is not None:
        return known
    if not file.is_file() or file.suffix != ".py":
        raise ModelError(f"--plugin {path}: no such Python file", "name a file that ends in .py.")
    name = f"rmab_opt_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _TABLE.plugins[str(file)] = module
    try:
        with _owned(""):
            spec.loader.exec_module(module)
    except ModelError:
        del _TABLE.plugins[str(file)], sys.modules[name]
        raise
    except Exception as error:
        del _TABLE.plugins[str(file)], sys.modules[name]
        raise ModelError(
            f"--plugin {path}: {type(error).__name__}: {error}", "run the file by itself with python to see where."
        ) from error
    listed = [part for part in os.environ.get(PLUGINS_IN, "").split(os.pathsep) if part]
    if str(file) not in listed:
        os.environ[PLUGINS_IN] = os.pathsep.join([*listed, str(file)])
    return module


def model_folders() -> list[Path]:
    """Folders ``models`` beside settings and plugins that come from elsewhere."""
    roots = [setting for setting in settings().values() if not setting.package.startswith(f"{GROUP}.")]
    files = [importlib.import_module(setting.package).__file__ for setting in roots if not setting.hidden]
    files += list(_TABLE.plugins)
    folders = [Path(str(file)).parent / "models" for file in files if file]
    return [folder for folder in folders if folder.is_dir()]


@contextmanager
def _owned(owner: str, hiding: bool = False) -> Iterator[None]:
    before = _TABLE.owner, _TABLE.hiding
    _TABLE.owner, _TABLE.hiding = owner, hiding
    try:
        yield
    finally:
        _TABLE.owner, _TABLE.hiding = before


def _fill(kind: str) -> None:
    """Import what may define things of a kind, once."""
    found = settings()
    if kind in _TABLE.filled:
        return
    _TABLE.filled.add(kind)
    part = PARTS[kind]
    try:
        for home in part.homes:
            module = importlib.import_module(home)
            for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
                importlib.import_module(f"{home}.{info.name}")
        for setting in found.values():
            if not setting.hidden:
                with _owned(setting.name):
                    setting.part(part.module)
    except BaseException:
        _TABLE.filled.discard(kind)
        raise


def _hidden(kind: str, name: str) -> str | None:
    """The hidden setting that would bring this name; asked only when a name is not found."""
    for setting in settings().values():
        if setting.hidden and f"{setting.name}.{kind}" not in _TABLE.asked_hidden:
            _TABLE.asked_hidden.add(f"{setting.name}.{kind}")
            with _owned(setting.name, hiding=True):
                setting.part(PARTS[kind].module)
    entry = _TABLE.entries[kind].get(name)
    return entry.setting if entry is not None else None


# ------------------------------------------------------------------------------------------------------------- looking
def names(kind: str) -> list[str]:
    """Registered names of a kind, in the order of definition."""
    return [entry.name for entry in entries(kind)]


def entries(kind: str) -> list[Entry]:
    """Registered things of a kind, in the order of definition."""
    _fill(kind)
    return [entry for entry in _TABLE.entries[kind].values() if not entry.hidden]


def find(kind: str, name: str) -> Entry:
    """A registered thing by name.

    Raises
    ------
    ModelError
        When there is none of that name; names the nearest, or the setting that would bring it.
    """
    _fill(kind)
    entry = _TABLE.entries[kind].get(name) if isinstance(name, str) else None
    if entry is not None and not entry.hidden:
        return entry
    owner = _hidden(kind, name) if isinstance(name, str) else None
    if owner is not None:
        missing = _missing(owner)
        raise ModelError(f"{PARTS[kind].what} {name!r} {missing.message}", missing.fix)
    raise ModelError(f"no {PARTS[kind].what} {name!r}", _nearest(str(name), names(kind)))


def known(kind: str, name: str) -> bool:
    """Whether :func:`find` knows what to say of the name: it is registered, or a hidden setting would bring it."""
    return name in names(kind) or _hidden(kind, name) is not None


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    listed = ", ".join(known[:40])
    return f"did you mean {close[0]!r}? (known: {listed})" if close else f"known: {listed}."


def parse(kind: str, text: str) -> tuple[Entry, dict[str, Any]]:
    """``name``, ``name:value`` or ``name:key=value,key=value`` as a thing and its checked arguments.

    A value alone is the first argument's; values are read as YAML reads them (numbers, true and false, else text).

    Raises
    ------
    ModelError
        When the name is unknown, an argument is unknown, missing or of the wrong type; names it.
    """
    from pydantic import ValidationError

    name, colon, rest = text.partition(":")
    entry = find(kind, name)
    known = entry.arguments
    given: dict[str, Any] = {}
    if colon:
        if not known:
            raise ModelError(f"{PARTS[kind].what} {text!r}: no argument is taken", f"write {name!r} alone.")
        first = next(iter(known))
        if rest.partition("=")[0] not in known or "=" not in rest:
            given[first] = _value(rest, known[first])
        else:
            for piece in rest.split(","):
                key, equals, value = piece.partition("=")
                if not equals or key not in known:
                    raise ModelError(
                        f"{PARTS[kind].what} {text!r}: unknown argument {key!r}", _nearest(key, list(known))
                    )
                given[key] = _value(value, known[key])
    lacking = [key for key, p in known.items() if p.default is inspect.Parameter.empty and not given.get(key)]
    if lacking:
        raise ModelError(
            f"{PARTS[kind].what} {text!r}: one argument is missing: {lacking[0]}", f"write '{entry.signature()}'."
        )
    try:
        return entry, entry.check(given)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        what = f"{PARTS[kind].what} {text!r}: {where}: {fault['msg']}"
        raise ModelError(what, f"as in '{entry.signature()}'.") from None


def _value(text: str, parameter: inspect.Parameter) -> Any:
    if parameter.annotation in (str, "str", Path, "Path"):
        return text
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def make(kind: str, text: str, *context: Any) -> Any:
    """What ``text`` names, made in a context (a policy's is the model); errors as in :func:`parse`."""
    entry, given = parse(kind, text)
    return entry.make(*context, **given)
