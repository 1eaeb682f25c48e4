"""What the verbs share: options, reading a model, answering."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rmab_opt import registry
from rmab_opt.errors import LimitError, ModelError, OverdueError, SolverError

if TYPE_CHECKING:
    from rmab_opt.decisions import Model

__all__ = [
    "CALENDAR",
    "GROUPS",
    "PROGRAMME",
    "RESEARCH",
    "STOPPED",
    "THIS_WEEK",
    "Due",
    "Force",
    "GroupColumn",
    "Jobs",
    "Json",
    "LedgerFolder",
    "ModelName",
    "Seconds",
    "Sets",
    "SolverName",
    "StateFile",
    "answer",
    "brought",
    "check_outputs",
    "demand_finite",
    "load_model",
    "printed",
    "say",
    "stoppable",
]

THIS_WEEK, PROGRAMME, CALENDAR, RESEARCH = GROUPS = ("this week", "a programme", "a calendar", "research")
"""Headings of the help, in order."""

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or a model file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value in place of the file's.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def _force(given: bool) -> bool:
    from rmab_opt.records import allow

    return allow(given)


Force = Annotated[bool, typer.Option("--force", callback=_force, help="Write over a file that rmab-opt did not write.")]
SolverName = Annotated[str | None, typer.Option("--solver", metavar="PROFILE", help="A profile's name or TOML file.")]
Seconds = Annotated[
    float | None,
    typer.Option(min=0.1, max=1e7, help="Until the answer is due, reading, solving and proof together."),
]
Jobs = Annotated[int | None, typer.Option("--jobs", metavar="N", help="Worker processes; -1 for all cores.")]
GroupColumn = Annotated[
    str | None, typer.Option("--groups", metavar="COLUMNS", help="Compare groups: village, village,sex or village*sex.")
]
StateFile = Annotated[
    Path | None, typer.Option("--state", metavar="CSV", help="States of the arms: columns id, state.")
]
LedgerFolder = Annotated[
    Path | None, typer.Option("--ledger", metavar="DIR", help="Start from the rounds recorded here.")
]


STOPPED = 1.0
"""Seconds for an answer after Ctrl-C."""

Answer = TypeVar("Answer")


class Due:
    """The clock of a verb whose work goes on when it is repeated; ``kept`` says so. It runs from here on.

    Called after each step with what is done and whether anything is left; raises LimitError when the time is over.
    """

    def __init__(self, seconds: float | None, kept: str) -> None:
        self.seconds, self.kept = seconds, kept
        self.until = math.inf if seconds is None else perf_counter() + seconds
        self.done = ""

    def __call__(self, done: str, more: bool) -> None:
        self.done = done
        if more and perf_counter() > self.until:
            raise self._late()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Steps that are given up when the time is over; LimitError then says what was done before."""
        from rmab_opt.overdue import given_up_at

        try:
            with given_up_at(self.until):
                yield
        except OverdueError:
            raise self._late() from None

    def _late(self) -> LimitError:
        if self.done:
            return LimitError(f"{self.done} in {self.seconds:g} s", f"repeat the command: {self.kept}.")
        return LimitError(
            f"no step was done in {self.seconds:g} s", "give more seconds: a step that was begun is lost."
        )


def stoppable(asked: Callable[..., Answer], deadline: float | None) -> tuple[Answer, bool]:
    """(the answer, whether Ctrl-C stopped it): then what a second more brings; a second Ctrl-C ends it.

    ``asked`` takes ``deadline``, a time of ``perf_counter`` or None.
    """
    try:
        return asked(deadline=deadline), False
    except KeyboardInterrupt:
        return asked(deadline=perf_counter() + STOPPED), True


PLAIN = str.maketrans(
    {"├": "|", "└": "`", "│": "|", "─": "-", "·": "-", "…": "...", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "→": "->",
     "×": "x", "±": "+-", "∞": "inf", "✓": "yes", "✗": "no", "’": "'", "“": '"', "”": '"', "Σ": "sum", "∑": "sum"}
)  # fmt: skip
"""What stands for our own signs where an output cannot take them."""


def printed(text: str, encoding: str | None) -> str:
    """A text as an output of this encoding takes it: control signs and what it lacks are written out."""
    from rmab_opt.report import visible

    text, name = visible(text, keep="\n\t"), encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(name, "backslashreplace").decode(name)
    return text


def say(text: str = "") -> None:
    """One line, or several, on standard output; whatever its encoding."""
    sys.stdout.write(printed(text + "\n", sys.stdout.encoding))


def answer(as_json: bool, document: Any, text: str) -> None:
    """The verb's answer: the document in JSON, or the text."""
    if not as_json:
        say(text)
        return
    try:
        document = json.dumps(document, ensure_ascii=not _takes_all(sys.stdout.encoding), indent=1, allow_nan=False)
    except ValueError:
        raise SolverError("the answer holds a number that is not finite", "look at the model's numbers.") from None
    sys.stdout.write(document + "\n")


def _takes_all(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("-", "") in ("utf8", "utf16", "utf32")


def check_outputs(model: Model | None, *written: Path | None, also: Iterable[Path | None] = ()) -> None:
    """Refuse at once, and not after an hour, to write over what the verb reads, and over a file that is not ours.

    Parameters
    ----------
    written
        Files that will be written; None is skipped.
    also
        Further files that are read.

    Raises
    ------
    ModelError
        Naming the file.
    """
    from rmab_opt.records import keep_safe, refuse_foreign

    read = [path for path in [*([] if model is None else _files_of(model)), *also] if path is not None]
    keep_safe(read)
    for out in written:
        if out is None or not _is_file(out):
            continue
        for path in read:
            if _is_file(path) and out.samefile(path):
                raise ModelError(f"{out}: the model is made of this file", "name another file.")
        refuse_foreign(out)


def _files_of(model: Model) -> list[Path]:
    """Files that a model may be made of."""
    read = [model.path, *(table.path for table in model.tables)]
    if model.path is not None:
        read += [model.path.parent / text for text in _texts(model.settings)]
    return [path for path in read if path is not None]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _texts(value: Any) -> Iterator[str]:
    """All texts of a model file that may name a file."""
    if isinstance(value, str) and 0 < len(value) < 256 and "\n" not in value:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def demand_finite(**given: float | None) -> None:
    """ModelError that names the option whose number is none, or has no end."""
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise ModelError(f"--{name} {value}", "give a finite number.")


def load_model(name: str, sets: list[str] | None) -> Model:
    """A model by name or path with the values of ``--set``.

    Raises
    ------
    ModelError
        When a ``--set`` is not KEY=VALUE, or as :func:`rmab_opt.load` does.
    """
    from rmab_opt.catalog import load_with
    from rmab_opt.records import keep_safe

    loaded = load_with(name, sets)
    # Whatever a verb writes later, and under whatever name: not over what it was made of.
    keep_safe(_files_of(loaded))
    return loaded


def in_programme(name: str | Path) -> bool:
    """Whether a name is a programme's folder, which `start` made and `next` keeps."""
    return (Path(name) / "standing.json").is_file()


def load_now(name: str, sets: list[str] | None) -> Model:
    """As :func:`load_model`; of a programme's folder the rounds that are left, from what is known of its members now.

    Raises
    ------
    ModelError
        As :func:`load_model`, and when no round is left.
    """
    loaded = load_model(name, sets)
    if not in_programme(name):
        return loaded
    from rmab_opt.programme.comparison import standpoint
    from rmab_opt.programme.ledger import Ledger

    here = standpoint(name)
    return Ledger(Path(name) / "ledger", loaded).model.later(here.period, here.belief, here.shared)


def brought(kind: str, name: str, setting: str, what: str) -> Callable[..., Any]:
    """What a setting brings to a verb, found by name; ``what`` is the flag that stands on it.

    Raises
    ------
    ModelError
        When the setting is not there.
    """
    if name not in registry.names(kind):
        registry.need(setting, what)
    return registry.find(kind, name).make


def has_tables(model: Model) -> bool:
    """Whether the arms say their own tables, on which bounds and fair plans rest; coupled arms do not."""
    return hasattr(model.problem.dynamics, "tabular")
