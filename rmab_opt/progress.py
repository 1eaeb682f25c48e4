"""How far a long call has come, where somebody watches: a bar on a terminal, a line in a notebook, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from multiprocessing import parent_process
from time import monotonic
from typing import Any, Protocol

__all__ = ["Tell", "watch"]

_OPEN: ContextVar[bool] = ContextVar("rmab_opt_progress_open", default=False)
"""Whether a bar is shown already: what is called under it keeps quiet."""
LEAST_SECONDS = 0.1
"""Between two drawings in a notebook."""


class Tell(Protocol):
    """Says how far the work has come; what is not given stays as it was."""

    def __call__(
        self, said: str | None = None, *, done: float | None = None, total: float | None = None, advance: float = 0
    ) -> None: ...


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this process, which nobody has to import for it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _nothing(
    said: str | None = None, *, done: float | None = None, total: float | None = None, advance: float = 0
) -> None:
    """Where nobody watches."""


@contextmanager
def watch(title: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Tell]:
    """A bar while the block runs.

    It goes to stderr, so that stdout stays the answer; there is none in a pipe, in a file, in a worker process or under
    another bar.

    Parameters
    ----------
    title
        What is done, until the block says something else.
    total
        Steps in all; unknown where not given.
    quiet
        No bar whoever watches.

    Yields
    ------
    Tell
        To be called with what is done; does nothing where nobody watches.
    """
    notebook = _in_notebook()
    if quiet or _OPEN.get() or parent_process() is not None or not (notebook or sys.stderr.isatty()):
        yield _nothing
        return
    shown = _OPEN.set(True)
    try:
        with _notebook_line(title, total) if notebook else _terminal_bar(title, total) as tell:
            yield tell
    finally:
        _OPEN.reset(shown)


@contextmanager
def _terminal_bar(title: str, total: float | None) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)

        def tell(
            said: str | None = None, *, done: float | None = None, total: float | None = None, advance: float = 0
        ) -> None:
            bar.update(task, description=said, completed=done, total=total, advance=advance or None)

        yield tell


@contextmanager
def _notebook_line(title: str, total: float | None) -> Iterator[Tell]:
    """One line that is drawn again in its place; the last drawing stays in the notebook."""
    from IPython.display import display

    state: dict[str, Any] = {"said": title, "done": 0, "total": total}

    def drawn() -> dict[str, str]:
        far = f"{state['done']:g}" + ("" if state["total"] is None else f" of {state['total']:g}")
        size = "" if state["total"] is None else f' max="{state["total"]:g}" value="{state["done"]:g}"'
        text = f"{state['said']} · {far}"
        return {"text/plain": text, "text/html": f"<progress{size}></progress> {escape(text)}"}

    handle, last = display(drawn(), raw=True, display_id=True), monotonic()

    def tell(
        said: str | None = None, *, done: float | None = None, total: float | None = None, advance: float = 0
    ) -> None:
        nonlocal last
        state["said"] = state["said"] if said is None else said
        state["total"] = state["total"] if total is None else total
        state["done"] = (state["done"] if done is None else done) + advance
        if monotonic() - last >= LEAST_SECONDS:
            handle.update(drawn(), raw=True)
            last = monotonic()

    try:
        yield tell
    finally:
        handle.update(drawn(), raw=True)
