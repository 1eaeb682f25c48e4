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

import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from rmab_opt.errors import ModelError

__all__ = [
    "HIDDEN_BY",
    "PARTS",
    "PLUGINS_IN",
    "Entry",
    "Registered",
    "Setting",
    "entries",
    "find",
    "hidden_settings",
    "known",
    "load_plugin",
    "make",
    "model_folders",
    "moved",
    "names",
    "need",
    "parse",
    "plugins",
    "register",
    "settings",
    "spelled",
    "split",
]


MOST_COUNT = 10_000_000
"""More arms, slots or rounds than this fit no machine: such a number is a slip of the pen."""


def _bounded(name: str, annotation: Any) -> Any:
    """Type of an argument, with the range that its name implies: seeds are not negative, counts fit a machine."""
    if annotation is not int:
        return annotation
    from pydantic import Field

    if name == "seed":
        return Annotated[int, Field(ge=0, lt=2**63)]
    if name.startswith("n_") or name == "horizon":
        return Annotated[int, Field(le=MOST_COUNT)]
    return annotation


@dataclass(frozen=True)
class Part:
    """Where things of one kind are defined: modules or packages of the kernel, and the module of a setting."""

    homes: tuple[str, ...]
    module: str
    what: str
    made_of: str = ""
    """Kind whose every thing is one of this kind too, under the same name."""


PARTS: dict[str, Part] = {
    "constraint": Part(("rmab_opt.actions.kinds",), "kinds", "constraint kind"),
    "columns": Part(("rmab_opt.actions.columns",), "kinds", "kind of columns"),
    "dynamics": Part(("rmab_opt.problem.kinds",), "dynamics", "kind of dynamics"),
    "domain": Part(("rmab_opt.instances",), "instances", "domain"),
    "objective": Part(
        ("rmab_opt.decisions.objectives", "rmab_opt.learning.policies"), "objectives", "kind of objective"
    ),
    "policy": Part(
        ("rmab_opt.decisions.policies", "rmab_opt.learning.policies", "rmab_opt.learning.outside"),
        "policies",
        "policy",
        made_of="rule",
    ),
    "rule": Part(
        (
            "rmab_opt.planning.scores",
            "rmab_opt.planning.rollout",
            "rmab_opt.planning.mean_field",
            "rmab_opt.planning.improve",
        ),
        "rules",
        "rule",
    ),
    "network": Part(("rmab_opt.learning.networks", "rmab_opt.learning.loads"), "networks", "network"),
    "anchor": Part(("rmab_opt.planning.anchors",), "rules", "anchor"),
    "run": Part(("rmab_opt.learning.policies",), "policies", "kind of training run"),
    "section": Part(("rmab_opt.learning.config",), "sections", "section of a model file"),
    "learner": Part(("rmab_opt.learning.learners",), "learners", "learner"),
    "report": Part(("rmab_opt.decisions.outcomes",), "reports", "report"),
    "experiment": Part((), "reproduction", "experiment"),
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
    group: str = ""
    """Heading under which it is listed; verbs have one."""

    @property
    def line(self) -> str:
        """What it is, in one line: the first paragraph of the docstring, where nothing else was said."""
        text = self.said or inspect.getdoc(self.make) or ""
        return " ".join(text.strip().partition("\n\n")[0].split()).rstrip(".")

    @property
    def hidden(self) -> bool:
        """Whether its setting is treated as not installed."""
        return self.setting != "" and self.setting in hidden_settings()

    @cached_property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """The maker's keyword-only parameters that a person can write, by name, with evaluated annotations."""
        try:
            found = inspect.signature(self.make, eval_str=True).parameters
        except (NameError, TypeError):
            found = inspect.signature(self.make).parameters
        bound = self.make.keywords if isinstance(self.make, partial) else {}
        return {
            name: parameter
            for name, parameter in found.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            and name not in bound
            and (hasattr(self.make, "model_fields") or _writable(parameter.annotation))
        }

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
            fields[name] = (_bounded(name, annotation), default)
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
            if name in getattr(self.make, "common", ()):
                continue
            required = parameter.default is inspect.Parameter.empty
            said.append(f"{name}=..." if required else f"{name}={parameter.default}")
        return f"{self.name}:{','.join(said)}" if said else self.name

    def described(self) -> dict[str, Any]:
        """Arguments by name with their defaults as text; None where one must be given."""
        said: dict[str, Any] = {}
        common = getattr(self.make, "common", ())
        for name, parameter in self.arguments.items():
            if name in common:
                continue
            default = parameter.default
            if default is inspect.Parameter.empty:
                said[name] = None
            elif repr(default) == "<factory>":
                said[name] = "empty"
            else:
                said[name] = json.dumps(default, default=str, ensure_ascii=False)
        return said


def _writable(annotation: Any) -> bool:
    """Whether values of a type can be written in a name or a model file; arrays and other objects cannot."""
    if annotation is inspect.Parameter.empty or annotation in (str, int, float, bool, Path, None, type(None), Any, ...):
        return True
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _writable(get_args(annotation)[0])
    return origin is not None and all(_writable(inner) for inner in get_args(annotation))


@dataclass(frozen=True)
class Setting:
    """A package of things that belong to one idea."""

    name: str
    package: str

    @property
    def hidden(self) -> bool:
        """Whether it is treated as not installed."""
        return self.name in hidden_settings()

    @property
    def own(self) -> bool:
        """Whether it comes with this package."""
        return self.package.startswith(f"{GROUP}.")

    @property
    def line(self) -> str:
        """The first line of the package's docstring."""
        return (importlib.import_module(self.package).__doc__ or "").strip().partition("\n")[0].rstrip(".")

    def part(self, module: str) -> ModuleType | None:
        """A module of the package, or None where it has none of that name.

        Raises
        ------
        ModelError
            When a setting from elsewhere cannot be imported; names it and the reason.
        """
        name = f"{self.package}.{module}"
        try:
            root = importlib.import_module(self.package)
            if not hasattr(root, "__path__"):
                # A setting of one file: everything is in it.
                return root
            return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None
        except ModelError:
            raise
        except Exception as error:
            if self.own:
                raise
            raise ModelError(
                f"the setting {self.name} ({name}): {type(error).__name__}: {error}", "repair or uninstall it."
            ) from error


@dataclass
class _Table:
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in PARTS})
    filled: set[tuple[str, str]] = field(default_factory=set)
    """Kinds, each with the setting (or "" for the kernel) whose modules have been imported for it."""
    plugins: dict[str, ModuleType] = field(default_factory=dict)


_TABLE = _Table()


def register(kind: str, name: str, *, line: str = "", group: str = "") -> Callable[[Maker], Maker]:
    """Register a maker under a name; as a decorator or called with it.

    Parameters
    ----------
    kind
        One of :data:`PARTS`.
    line
        What it is, in one line; the first paragraph of the maker's docstring by default.
    group
        Heading under which it is listed, for verbs.

    Raises
    ------
    ModelError
        When the kind is unknown, or the name is taken by something else.
    """
    if kind not in PARTS:
        raise ModelError(f"nothing is registered as {kind!r}", f"use one of {', '.join(PARTS)}.")
    if not isinstance(name, str) or not name or set(name) & set(":,= \n\t"):
        raise ModelError(
            f"{name!r} is no name for a {PARTS[kind].what}", "use a word without spaces, colons, commas and '='."
        )

    def keep(make: Maker) -> Maker:
        module = getattr(make, "__module__", "") or ""
        if module.partition(".")[0] != "rmab_opt":
            # What the package brings has its names first, so that the newcomer is told and not the package.
            _fill(kind)
        known = _TABLE.entries[kind].get(name)
        if known is not None and not known.hidden and not _again(known.make, make):
            raise ModelError(
                f"{PARTS[kind].what} {name!r} is taken by {_where(known.make)}",
                "choose another name: a name stands for one thing.",
            )
        _TABLE.entries[kind][name] = Entry(kind, name, make, _owner(module), line, group)
        return make

    return keep


def _owner(module: str) -> str:
    """Name of the setting that a module belongs to; empty for other code."""
    if module.startswith(f"{GROUP}."):
        return module.split(".")[2]
    if module.partition(".")[0] == "rmab_opt":
        return ""
    inside = (s.name for s in settings().values() if f"{module}.".startswith(f"{s.package}."))
    return next(inside, "")


def _again(first: Any, second: Any) -> bool:
    """Whether one definition was only run again: the same lines of a file, or a cell of a notebook."""
    place = (getattr(first, "__module__", None), getattr(first, "__qualname__", None))
    if first is second:
        return True
    if None in place or place != (getattr(second, "__module__", None), getattr(second, "__qualname__", None)):
        return False
    return place[0] == "__main__" or _lines(first) == _lines(second)


def _lines(make: Any) -> list[tuple[str, int]]:
    """File and first line of a function, or of the methods of a class."""
    members = vars(make).values() if inspect.isclass(make) else [make]
    return sorted((m.__code__.co_filename, m.__code__.co_firstlineno) for m in members if hasattr(m, "__code__"))


def _where(make: Any) -> str:
    return f"{getattr(make, '__module__', '?')}.{getattr(make, '__qualname__', make)}"


# ------------------------------------------------------------------------------------------------------------ settings
def hidden_settings() -> set[str]:
    """Names of the settings that :data:`HIDDEN_BY` hides."""
    return {name.strip() for name in os.environ.get(HIDDEN_BY, "").split(",") if name.strip()}


def settings() -> dict[str, Setting]:
    """All settings by name, hidden ones included."""
    return dict(_discovered())


@cache
def _discovered() -> dict[str, Setting]:
    root = importlib.import_module(GROUP)
    found = {
        info.name: Setting(info.name, f"{GROUP}.{info.name}")
        for info in pkgutil.iter_modules(root.__path__)
        if info.ispkg
    }
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        taken = found.get(point.name)
        if taken is not None and taken.package != point.module:
            raise ModelError(
                f"the setting {point.name} of {point.module} is taken by {taken.package}", "uninstall one of them."
            )
        found[point.name] = Setting(point.name, point.module)
    return found


def need(name: str, what: str = "") -> Setting:
    """A setting that a verb or a flag stands on; ``what`` says which, for the message.

    Raises
    ------
    ModelError
        When it is not there.
    """
    found = settings().get(name)
    if found is None or found.hidden:
        raise _missing(name, what)
    return found


def moved(name: str, address: str) -> Callable[[str], Any]:
    """``__getattr__`` of a module at an address where a setting's names stood before settings had folders.

    Raises
    ------
    ModelError
        When the setting is not there.
    """

    def found(wanted: str) -> Any:
        if wanted.startswith("__"):
            raise AttributeError(f"module {address!r} has no attribute {wanted!r}")
        package = need(name, address).package
        warnings.warn(f"{address} is {package} now", DeprecationWarning, stacklevel=2)
        value = getattr(importlib.import_module(package), wanted)
        # Once a module named as its function is loaded, it hides the function in the package.
        return getattr(value, wanted, value) if isinstance(value, ModuleType) else value

    return found


def _missing(name: str, what: str = "") -> ModelError:
    said = f"{what} needs the setting {name}, which is not installed".strip()
    return ModelError(said, f"install it, or unset {HIDDEN_BY}.", needs=(name,))


def load_plugin(path: str | Path) -> ModuleType:
    """Import a Python file, or the package of a folder, that registers things; the same again changes nothing.

    Raises
    ------
    ModelError
        When there is no such file, or it fails; names the file and the reason.
    """
    file = Path(path).resolve()
    if (file / "__init__.py").is_file():
        file = file / "__init__.py"
    known = _TABLE.plugins.get(str(file))
    if known is not None:
        return known
    if not file.is_file() or file.suffix != ".py":
        raise ModelError(f"--plugin {path}: no such Python file", "name a file that ends in .py.")
    # Two files of one name are two modules.
    stem = file.parent.name if file.name == "__init__.py" else file.stem
    name = f"rmab_opt_plugin_{stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    inside = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise ModelError(f"--plugin {path}: is no Python file", "name a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _TABLE.plugins[str(file)] = module
    before = {kind: dict(known) for kind, known in _TABLE.entries.items()}
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        # Half a plugin is none: what it had registered before it failed goes.
        for kind, entries_before in before.items():
            for added in [key for key in _TABLE.entries[kind] if key not in entries_before]:
                if getattr(_TABLE.entries[kind][added].make, "__module__", "").startswith(name):
                    del _TABLE.entries[kind][added]
        del _TABLE.plugins[str(file)], sys.modules[name]
        if isinstance(error, ModelError):
            raise ModelError(f"--plugin {path}: {error.message}", error.fix, needs=error.needs) from error
        if isinstance(error, Exception):
            raise ModelError(
                f"--plugin {path}: {type(error).__name__}: {error}", "run the file by itself with python to see where."
            ) from error
        raise
    listed = [part for part in os.environ.get(PLUGINS_IN, "").split(os.pathsep) if part]
    if str(file) not in listed:
        os.environ[PLUGINS_IN] = os.pathsep.join([*listed, str(file)])
    return module


def plugins() -> tuple[str, ...]:
    """Files of the plugins in use, in the order in which they were named."""
    for path in os.environ.get(PLUGINS_IN, "").split(os.pathsep):
        if path and path not in _TABLE.plugins:
            load_plugin(path)
    return tuple(_TABLE.plugins)


def model_folders() -> list[Path]:
    """Folders ``models`` beside settings and plugins that come from elsewhere."""
    files = [importlib.import_module(s.package).__file__ for s in settings().values() if not s.own and not s.hidden]
    folders = [Path(str(file)).parent / "models" for file in [*files, *plugins()] if file]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def spelled(kind: str, name: object) -> bool:
    """Whether a module that brings things of a kind spells this name in a ``register`` line; none is imported.

    For kinds whose modules are slow to import, networks before all: what is not spelled may still be :func:`known`.
    """
    part = PARTS[kind]
    line = re.compile(rf"""register\(\s*["']{kind}["']\s*,\s*["']{re.escape(str(name))}["']""")
    for module in (*part.homes, *(f"{s.package}.{part.module}" for s in settings().values() if not s.hidden)):
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # a setting of one file
            continue
        if spec is not None and spec.has_location and line.search(Path(str(spec.origin)).read_text(encoding="utf-8")):
            return True
    return False


def _fill(kind: str) -> None:
    """Import what may define things of a kind, each once."""
    plugins()
    part = PARTS[kind]

    def kernel() -> None:
        for home in part.homes:
            module = importlib.import_module(home)
            for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
                importlib.import_module(f"{home}.{info.name}")

    _once(kind, "", kernel)
    for setting in settings().values():
        if not setting.hidden:
            _once(kind, setting.name, partial(setting.part, part.module))


def _once(kind: str, owner: str, fill: Callable[[], Any]) -> None:
    if (kind, owner) in _TABLE.filled:
        return
    _TABLE.filled.add((kind, owner))
    try:
        fill()
    except BaseException:
        _TABLE.filled.discard((kind, owner))
        raise


def _brings(kind: str, name: str) -> str:
    """The hidden setting that would bring this name, or nothing; asked only when a name is not found."""
    for setting in settings().values():
        if setting.hidden:
            _once(kind, setting.name, partial(setting.part, PARTS[kind].module))
    entry = _TABLE.entries[kind].get(name)
    if entry is None and PARTS[kind].made_of:
        return _brings(PARTS[kind].made_of, name)
    return entry.setting if entry is not None else ""


# ------------------------------------------------------------------------------------------------------------- looking
def names(kind: str) -> list[str]:
    """Registered names of a kind, in the order of definition."""
    return [entry.name for entry in entries(kind)]


def entries(kind: str) -> list[Entry]:
    """Registered things of a kind, in the order of definition."""
    _fill(kind)
    return [entry for entry in _TABLE.entries[kind].values() if not entry.hidden]


class Registered(Mapping[str, Callable[..., Any]]):
    """Names of a kind to their makers, as the registry knows them at the time of asking; read-only."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getitem__(self, name: str) -> Callable[..., Any]:
        _fill(self.kind)
        entry = _TABLE.entries[self.kind][name]
        if entry.hidden:
            raise KeyError(name)
        return entry.make

    def __iter__(self) -> Iterator[str]:
        return iter(names(self.kind))

    def __len__(self) -> int:
        return len(names(self.kind))

    def __repr__(self) -> str:
        return f"Registered({self.kind!r}: {', '.join(self)})"


def find(kind: str, name: object) -> Entry:
    """A registered thing by name.

    Raises
    ------
    ModelError
        When there is none of that name; names the nearest, or the setting that would bring it.
    """
    if known(kind, name):
        return _TABLE.entries[kind][str(name)]
    raise ModelError(f"no {PARTS[kind].what} {name!r}", _nearest(str(name), names(kind)))


def known(kind: str, name: object) -> bool:
    """Whether there is a thing of that name.

    Raises
    ------
    ModelError
        When a hidden setting would bring it.
    """
    _fill(kind)
    if not isinstance(name, str):
        return False
    entry = _TABLE.entries[kind].get(name)
    if entry is not None and not entry.hidden:
        return True
    owner = _brings(kind, name)
    if owner:
        raise _missing(owner, f"{PARTS[kind].what} {name!r}")
    return False


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "there is none."
    close = get_close_matches(name, known, n=1)
    listed = ", ".join(known[:40])
    return f"did you mean {close[0]!r}? (known: {listed})" if close else f"known: {listed}."


def split(text: str) -> list[str]:
    """Names separated by commas, where the commas between a name's own arguments do not separate.

    >>> split("none,sampling:draws=5,iterative_dqn:runs/a")
    ['none', 'sampling:draws=5', 'iterative_dqn:runs/a']
    >>> split("own:depth=2,width=3,none")
    ['own:depth=2,width=3', 'none']
    """
    found: list[str] = []
    for piece in (part.strip() for part in text.split(",")):
        before, equals, _ = piece.partition("=")
        if found and equals and ":" not in before and "=" in found[-1].partition(":")[2]:
            found[-1] = f"{found[-1]},{piece}"
        elif piece:
            found.append(piece)
    return found


def parse(kind: str, text: str) -> tuple[Entry, dict[str, Any]]:
    """``name``, ``name:value`` or ``name:key=value,key=value`` as a thing and its checked arguments.

    A value alone is the first argument's; values are read as YAML reads them (numbers, true and false, else text).

    Raises
    ------
    ModelError
        When the name is unknown, an argument is unknown, twice, missing or of the wrong type; names it.
    """
    from pydantic import ValidationError

    if not isinstance(text, str):
        raise ModelError(f"{text!r} is no name of a {PARTS[kind].what}", "write it as text.")
    name, colon, rest = text.partition(":")
    entry = find(kind, name)
    given = _arguments(entry, text, rest) if colon else {}
    required = [key for key, p in entry.arguments.items() if p.default is inspect.Parameter.empty]
    lacking = [key for key in required if given.get(key) in (None, "")]
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


def _arguments(entry: Entry, text: str, rest: str) -> dict[str, Any]:
    """What stands behind the colon, by argument, not yet checked."""
    known, what = entry.arguments, PARTS[entry.kind].what
    if not known:
        raise ModelError(f"{what} {text!r}: no argument is taken", f"write {entry.name!r} alone.")
    first = next(iter(known))
    key, equals, _ = rest.partition("=")
    if not equals or not (key in known or key.isidentifier()):
        return {first: _value(rest, known[first])}
    given: dict[str, Any] = {}
    for piece in rest.split(","):
        key, equals, value = piece.partition("=")
        if not equals or key not in known:
            raise ModelError(f"{what} {text!r}: unknown argument {key!r}", _nearest(key, list(known)))
        if key in given:
            raise ModelError(f"{what} {text!r}: argument {key!r} stands twice", "give it once.")
        given[key] = _value(value, known[key])
    return given


def _value(text: str, parameter: inspect.Parameter) -> Any:
    wanted = parameter.annotation
    if set(get_args(wanted) or (wanted,)) <= {str, Path, type(None)} or get_origin(wanted) is Literal:
        return text
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def make(kind: str, text: str, *context: Any) -> Any:
    """What ``text`` names, made in a context (a policy's is the model); errors as in :func:`parse`."""
    entry, given = parse(kind, text)
    return entry.make(*context, **given)
