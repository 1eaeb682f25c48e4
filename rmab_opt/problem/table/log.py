"""What reading a table assumed, dropped or changed: nothing happens to a sheet without a line here."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Log", "Remark"]


@dataclass(frozen=True)
class Remark:
    """One thing that reading did."""

    line: int | None
    """Line in the source; None when it is about the whole sheet."""
    column: str
    was: str
    now: str
    why: str

    def row(self) -> dict[str, str | int]:
        """As a row of the change log: line, column, was, is, why."""
        line = "" if self.line is None else self.line
        return {"line": line, "column": self.column, "was": self.was, "is": self.now, "why": self.why}

    def __str__(self) -> str:
        place = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.column) if part)
        return f"{place}: {self.why}" if place else self.why


@dataclass
class Log:
    """Remarks in the order they were made, and facts about the sheet by name."""

    remarks: list[Remark] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    blank: list[int] = field(default_factory=list)
    """Lines of blank rows."""

    def add(self, line: int | None, column: str, was: str, now: str, why: str) -> None:
        """Note one thing; the same thing is noted once."""
        remark = Remark(line, column, was, now, why)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def copy(self) -> Log:
        """A log that grows on its own."""
        return Log(list(self.remarks), dict(self.facts), list(self.blank))
