"""The exceptions of the package, each with the exit code the command line gives it.

Every message says where (file, line, field), what (the value) and, after "To fix,", the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "CapabilityError",
    "CertificateError",
    "Findings",
    "InfeasibleError",
    "LimitError",
    "ModelError",
    "OverdueError",
    "RmabError",
    "SolverError",
    "StorageError",
    "UnsettledError",
]


class RmabError(Exception):
    """Base of all errors raised on purpose by rmab_opt.

    Parameters
    ----------
    message
        What is wrong, one sentence, with the field and the value.
    fix
        The remedy, completing "To fix, ...".
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        self.message = message
        self.fix = fix
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}\n  To fix, {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[Callable[..., RmabError], tuple[type[RmabError], str], dict[str, Any]]:
        # What a worker raises arrives whole, whatever the class takes to be made.
        return _again, (type(self), self.message), self.__dict__


def _again(kind: type[RmabError], message: str) -> RmabError:
    """An error as it was pickled; its attributes follow."""
    made = kind.__new__(kind, message)
    made.args = (message,)
    return made


class ModelError(RmabError):
    """A model file, a table, weights, a state or an option is not what it must be.

    ``needs`` names the settings that are missing, when that is the reason.
    """

    exit_code = 2

    def __init__(self, message: str, fix: str = "", *, needs: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix)
        self.needs = needs


class CapabilityError(RmabError):
    """A method was asked of an object that does not offer it; names the method, the class and two ways out."""

    exit_code = 2

    def __init__(self, method: str, owner: object, ways_out: tuple[str, str]) -> None:
        kind = owner if isinstance(owner, type) else type(owner)
        super().__init__(f"{kind.__name__} does not offer {method}", f"{ways_out[0]}, or {ways_out[1]}.")


class UnsettledError(CapabilityError):
    """A check gave up within its own limits: it says nothing against an action, and nothing for it."""


class InfeasibleError(RmabError):
    """No action satisfies all constraints together.

    ``clash`` has the sentence of each constraint of a minimal clash by name, where it was looked for.
    """

    exit_code = 3

    def __init__(self, message: str, fix: str = "", *, clash: Mapping[str, str] | None = None) -> None:
        super().__init__(message, fix)
        self.clash = dict(clash or {})


class SolverError(RmabError):
    """The solver is missing, refused its input, failed, or found nothing before a limit."""

    exit_code = 4


class LimitError(SolverError):
    """Nothing was found before a limit on time or nodes; another way may still answer."""


class OverdueError(LimitError):
    """The time of the whole was over while a part was at work: that part does not count."""


class CertificateError(SolverError):
    """A solution did not survive its independent re-check; nothing is returned in its place."""


class StorageError(RmabError):
    """The machine could not keep a file: the disk is full or fails; what was there before is as it was."""

    exit_code = 74  # EX_IOERR of sysexits.h: neither the input nor the solver is at fault.


class Findings:
    """Collects the faults of one input so that a person sees all of them at once, in order.

    Parameters
    ----------
    where
        File or object that is read; stands before every line.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[str] = []

    def add(self, place: str, what: str, fix: str = "") -> None:
        """Note one fault at ``place`` (a row, a field); ``fix`` completes "To fix, ..."."""
        self.lines.append(
            f"{self.where}{':' if self.where else ''}{place}: {what}" + (f"; to fix, {fix}" if fix else "")
        )

    def attempt(self, make: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """Value of a call; None when it raises a :class:`ModelError`, whose lines are noted."""
        try:
            return make(*given, **options)
        except ModelError as error:
            self.lines += (f"{error.message}; to fix, {error.fix}" if error.fix else error.message).split("\n")
        return None

    def raise_if_any(self, most: int = 20) -> None:
        """Raise one :class:`ModelError` with the first ``most`` faults, or return when there are none."""
        if not self.lines:
            return
        shown = self.lines[:most]
        if len(self.lines) > most:
            shown.append(f"{self.where}: and {len(self.lines) - most} more of the same kind")
        raise ModelError("\n".join(shown))
