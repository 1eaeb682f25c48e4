"""The five exceptions of the package, each with the exit code the command line gives it.

Every message says where (file, line, field), what (the value) and, after "To fix,", the remedy.
"""

from __future__ import annotations

__all__ = ["CapabilityError", "CertificateError", "InfeasibleError", "ModelError", "RmabError", "SolverError"]


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


class ModelError(RmabError):
    """A model file, a table, weights, a state or an option is not what it must be."""

    exit_code = 2


class CapabilityError(RmabError):
    """A method was asked of an object that does not offer it; names the method, the class and two ways out."""

    exit_code = 2

    def __init__(self, method: str, owner: object, ways_out: tuple[str, str]) -> None:
        kind = owner if isinstance(owner, type) else type(owner)
        super().__init__(f"{kind.__name__} does not offer {method}", f"{ways_out[0]}, or {ways_out[1]}.")


class InfeasibleError(RmabError):
    """No action satisfies all constraints together."""

    exit_code = 3


class SolverError(RmabError):
    """The solver is missing, refused its input, failed, or found nothing before a limit."""

    exit_code = 4


class CertificateError(SolverError):
    """A solution did not survive its independent re-check; nothing is returned in its place."""
