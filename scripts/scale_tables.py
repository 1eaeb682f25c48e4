"""Tables of docs/decisions.md on size and limits, from the records in benchmarks/data/.

    python scripts/scale_tables.py

Reads benchmarks/data/scale.csv and limits.csv, and from benchmarks/limits.py what was asked; writes between
``<!-- scale -->``, ``<!-- limits -->`` and their ends. What was wanted and is missed is worked out from the records, so
that no sentence can forget a row.
"""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "decisions.md"
DATA = ROOT / "benchmarks" / "data"

SETTINGS = {"budget": "budget", "groups": "budget and groups", "roster": "roster", "capacity": "loads"}
VERBS = ("check", "decide", "record", "bound", "evaluate")
SIZES = (1000, 10_000, 100_000)
AT_TEN_THOUSAND = {"check": 3.0, "decide": 10.0, "bound": 60.0}
AT_MOST = {"budget": 10.0, "groups": 10.0, "roster": 100.0, "capacity": 100.0}
"""CPU seconds that were wanted at 10,000 arms by verb and at 100,000 by setting."""
MOST_GROWTH, MOST_MEGABYTES = 1.15, 4096.0


def rows(name: str) -> list[dict[str, str]]:
    """A record's rows."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def seconds(text: str) -> str:
    """CPU seconds in two digits."""
    value = float(text)
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def scale() -> list[str]:
    """One row a verb, what it took at each size; then what was wanted and is missed."""
    record = rows("scale.csv")
    found = {(row["verb"], row["setting"], row["arms"]): row for row in record}

    def cell(verb: str, setting: str) -> str:
        said = []
        for size in SIZES:
            row = found.get((verb, setting, str(size)))
            said.append(
                "-" if row is None else seconds(row["cpu_seconds"]) + ("" if row["ended"] == "ok" else " (cut)")
            )
        return " / ".join(said)

    lines = [f"| verb | {' | '.join(SETTINGS.values())} |", "|---|" + "---|" * len(SETTINGS)]
    lines += [f"| `{verb}` | {' | '.join(cell(verb, setting) for setting in SETTINGS)} |" for verb in VERBS]
    runs = [row for row in record if row["arms"] in map(str, SIZES)]
    ended = [row for row in runs if row["ended"] == "ok"]
    most = max(float(row["megabytes"]) for row in ended)
    growth = max(
        float(row["cpu_seconds"]) for row in record if row["arms"] == "exponent" and row["cpu_seconds"] != "nan"
    )
    said = f"{taken(runs)}; largest memory {most / 1024:.1f} GiB, largest growth exponent {growth:.2f}."
    return [*lines, "", said[0].upper() + said[1:], missed()]


def missed() -> str:
    """What of the targets the record misses, in words."""
    said, record = [], rows("scale.csv")
    for row in record:
        verb, name = row["verb"], SETTINGS.get(row["setting"], "")
        if verb == "start":
            continue
        if row["arms"] == "exponent":
            if row["cpu_seconds"] == "nan" or float(row["cpu_seconds"]) > MOST_GROWTH:
                said.append(f"`{verb}` under {name} grows by the power {row['cpu_seconds']} (wanted {MOST_GROWTH:g})")
            continue
        size = int(row["arms"])
        wanted = (
            AT_MOST[row["setting"]] if size == SIZES[-1] else AT_TEN_THOUSAND.get(verb) if size == SIZES[1] else None
        )
        where = f"`{verb}` under {name} at {size:,} arms"
        if row["ended"] != "ok":
            said.append(f"{where} did not end ({row['ended']} after {seconds(row['cpu_seconds'])} s)")
        elif wanted is not None and float(row["cpu_seconds"]) > wanted:
            said.append(f"{where} {seconds(row['cpu_seconds'])} s (wanted {wanted:g})")
        if float(row["megabytes"] or 0.0) > MOST_MEGABYTES:
            said.append(f"{where} takes {float(row['megabytes']) / 1024:.1f} GiB (wanted 4)")
    done = {(row["verb"], row["setting"], row["arms"]) for row in record}
    open_ = [
        f"`{verb}` under {name} at {' and '.join(f'{size:,}' for size in lacking)}"
        for verb in VERBS
        for setting, name in SETTINGS.items()
        if (lacking := [size for size in SIZES if (verb, setting, str(size)) not in done])
    ]
    text = f"Missed: {'; '.join(said)}." if said else "Of what was run nothing that was wanted is missed."
    return text + (f" Not run, so not known at this commit: {'; '.join(open_)} arms." if open_ else "")


def limits() -> list[str]:
    """One row a verb: runs, those that held, the slowest; then those that did not, by name."""
    record = rows("limits.csv")
    lines = ["| verb | runs | held | of them on the wall too | most CPU s | most wall s |", "|---|---|---|---|---|---|"]
    for verb in dict.fromkeys(row["verb"] for row in record):
        own = [row for row in record if row["verb"] == verb]
        held = [row for row in own if row["held"] == "yes"]
        wall = sum(float(row["wall_seconds"]) <= (10.0 if "100,000" in row["model"] else 6.0) for row in held)
        cpu, slow = (max(float(row[name]) for row in own) for name in ("cpu_seconds", "wall_seconds"))
        lines.append(f"| `{verb}` | {len(own)} | {len(held)} | {wall} | {cpu:.1f} | {slow:.1f} |")
    late = [
        f"`{r['verb']}` of {r['model']} ({r['cpu_seconds']} CPU s, {r['ended']})" for r in record if r["held"] != "yes"
    ]
    said = f"Not held: {'; '.join(late)}." if late else "All held."
    asked = runpy.run_path(str(ROOT / "benchmarks" / "limits.py"))
    names = [*asked["HARD"], *asked["LARGE"]]
    runs = {name: len(asked["VERBS"]) + (name in asked["GROUPED"]) * (len(asked["VERBS"]) - 1) for name in names}
    models = {name for name in names if sum(row["model"] == name for row in record) == runs[name]}
    rest = [name for name in names if name not in models]
    said += f" Not reached: {'; '.join(rest)}." if rest else ""
    return [*lines, "", f"{len(models)} of {len(names)} models, {len(record)} runs; {taken(record)}. {said}"]


def taken(record: list[dict[str, str]]) -> str:
    """Commit and load of a record."""
    loads, commits = [float(row["load"]) for row in record if row["load"]], sorted({row["commit"] for row in record})
    return f"commit {', '.join(commits)}, load {min(loads):.0f} to {max(loads):.0f} on two cores"


def main() -> None:
    """Write both tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, lines in (("scale", scale()), ("limits", limits())):
        block = "\n".join(lines)
        page, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, b=block: f"{m[1]}{b}\n{m[2]}", page, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"{PAGE}: {count} places for {name}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
