"""Write docs/reproduction.md and its pictures from the recorded data; nothing is measured here.

    python scripts/reproduction_page.py [--pictures]

Reads benchmarks/data/reproduction.yaml and the CSV files that it names. Pictures are drawn with ``--pictures`` only.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
PAGE = ROOT / "docs" / "reproduction.md"
IMAGES = ROOT / "docs" / "images" / "reproduction"

VERDICTS = ("holds", "holds with a reason", "does not hold", "cannot be tested")
SIZES = ("full", "quick", "proof")

PICTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "embedded_levels": ("Coupled settings, 20 arms: reward a round", ("embedded-levels-20", "embedded-recipe")),
    "embedded_gain": ("Learner over myopic and the best constant, %", ("embedded-dominance-20", "embedded-static")),
    "embedded_fit": ("Warm start: score by length of the fit", ("embedded-fit-curve",)),
    "inspection_table_1": ("Table 1: reward of a year, 5,000 arms", ("inspection-equality", "inspection-ip-tcb")),
    "inspection_table_2": ("Table 2: gain, %", ("inspection-order", "inspection-twenty", "inspection-small")),
    "neural_sizes": ("Neural indices: % of the occupancy bound (claim: 95)", ("neural-five-percent", "neural-unseen")),
    "equity_levels": ("Synthetic cohort: mean total of an arm", ("equity-levels",)),
    "equity_gini": ("Gini: utilitarian over rule", ("equity-three-to-five", "equity-twenty-ten", "equity-diabetes")),
    "equity_pareto": ("Figure 7: patients at the end, %", ("equity-pareto",)),
    "networked_levels": ("Figure 2: mean % active, k = 30 and 10", ("networked-k30", "networked-k10")),
    "networked_ten": ("Figure 3: share of the optimal gain, ten nodes", ("networked-optimality",)),
    "networked_rounds": ("Look-ahead over several rounds, % of the optimal gain", ("networked-rounds",)),
}  # fmt: skip
"""Dots with intervals beside crosses for published values: file, title, claims."""

LEFT_OUT = {"inspection_table_1": "arms", "embedded_fit": "error", "equity_gini": "leximin"}
"""Figures of other units, by a word of theirs: they stand in the table only."""

CURVES = {
    "networked_rounds_of_activity": ("networked_levels", "k30/", "/mean", "round", "% active, k = 30"),
    "equity_capacity": (
        "equity_capacity",
        "engaged/",
        "/most patients",
        "patients a month (step)",
        "active at the end",
    ),
}
"""Lines from the column ``curve``: file, experiment, how the rows' names begin and end, axes."""


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a CSV file beside the claims; an apostrophe that keeps a spreadsheet from reading a formula goes."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return tuple(
            {key: (value or "").removeprefix("'") for key, value in row.items()} for row in csv.DictReader(file)
        )


def claims() -> dict[str, Any]:
    """What stands in the YAML file."""
    found: dict[str, Any] = YAML(typ="safe").load((DATA / "reproduction.yaml").read_text(encoding="utf-8"))
    return found


def row_of(file: str, where: Mapping[str, str]) -> dict[str, str]:
    """The one row of a file with these cells."""
    found = [row for row in table(file) if all(row[key] == value for key, value in where.items())]
    if not found:
        raise SystemExit(f"{file}: no row with {dict(where)}")
    return found[0]


def number(text: str | None) -> float | None:
    """A cell as a number; None for an empty one."""
    return float(text) if text not in (None, "") else None


def read(figure: Mapping[str, Any]) -> dict[str, Any]:
    """A figure's value with its interval and the published one, from the recorded file."""
    if "of" in figure:
        file, where, column, ends = (
            f"reproduction/{figure['of']}.csv",
            {"measure": figure["measure"]},
            "ours",
            ("low", "high"),
        )
    else:
        file, where, column = figure["file"], figure["where"], figure["column"]
        ends = (figure.get("low", ""), figure.get("high", ""))
    row = row_of(file, where)
    value, low, high = (number(row.get(key)) for key in (column, *ends))
    published = figure.get("published", number(row.get("published")))
    error = None if "published" in figure else number(row.get("published_error"))
    if "over" in figure:
        below = number(row_of(file, {**where, **figure["over"]})[column])
        assert value is not None
        assert below
        value, low, high = value / below, None, None
        published, error = figure.get("published"), None
    return {"what": figure["what"], "value": value, "low": low, "high": high, "published": published, "error": error}


def said(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def words(found: Mapping[str, Any], digits: int) -> tuple[str, str]:
    """Ours with its interval, and the published value, as they stand on the page."""
    ours = said(found["value"], digits)
    if found["low"] is not None and found["high"] is not None:
        ours += f" ({said(found['low'], digits)} to {said(found['high'], digits)})"
    published = found["published"]
    if published is None or isinstance(published, str):
        return ours, published or "-"
    return ours, f"{published:,.6g}" + (f" ± {found['error']:.4g}" if found["error"] else "")


def runs() -> list[dict[str, Any]]:
    """What the recorded experiments were made with."""
    files = sorted((DATA / "reproduction").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def about(claim: Mapping[str, Any]) -> str:
    """How it was measured: size, seeds, command, test."""
    made = {run["experiment"]: run for run in runs()}
    used = list(dict.fromkeys(figure["of"] for figure in claim["figures"] if "of" in figure))
    parts = [f"size: {claim['size']}"]
    if "seeds" in claim:
        parts.append(claim["seeds"])
    for name in used:
        seeds = made[name]["seeds"]
        parts.append(f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0] if seeds else 0}")
        parts.append(f"`rmab-opt reproduce {name} --{made[name]['form']}`")
    if "command" in claim:
        parts.append(f"`{claim['command']}`")
    if "test" in claim:
        parts.append(f"test: `{claim['test']}`")
    return "; ".join(parts)


def section(claim: Mapping[str, Any]) -> list[str]:
    """One claim: what, where, figures, verdict, why."""
    lines = [f"### {claim['claim']}", "", f"*{claim['source']}* — **{claim['verdict']}**. {claim['why']}", ""]
    if claim["figures"]:
        lines += ["| | published | ours |", "|---|---|---|"]
        for figure in claim["figures"]:
            ours, published = words(read(figure), figure.get("digits", 1))
            lines.append(f"| {figure['what']} | {published} | {ours} |")
        lines.append("")
    return [*lines, f"({about(claim)})", ""]


HEAD = """# Every claim, measured again

Made by `scripts/reproduction_page.py` from `benchmarks/data/reproduction.yaml` and the tables beside it; a test holds
page and data together, another runs the quick form of the rows again. Intervals are 95 %. What the published code does
differently, and what that does, stands on [its own page](honesty.md).

`rmab-opt reproduce --list` names the experiments; `rmab-opt reproduce NAME --quick --out DIR` measures one again,
`--full` at the published sizes, `--jobs 2` on two cores. A run that was stopped goes on. Sizes marked *quick* are
smaller than published; *proof* is a test without simulation. Data sets that do not come along are looked for in
`$RMAB_DATA`.
"""


def page() -> str:
    """The whole page."""
    document = claims()
    count = Counter(claim["verdict"] for claim in document["claims"])
    lines = [HEAD, "| verdict | claims |", "|---|---|", *(f"| {name} | {count[name]} |" for name in VERDICTS), ""]
    drawn = {claim: name for name, (_, members) in PICTURES.items() for claim in members[:1]}
    for key, system in document["systems"].items():
        mine = [claim for claim in document["claims"] if claim["system"] == key]
        lines += [
            f"## {system['title']}",
            "",
            f"{system['paper']}.",
            "",
            "| claim | source | size | verdict |",
            "|---|---|---|---|",
        ]
        lines += [f"| {c['claim']} | {c['source']} | {c['size']} | {c['verdict']} |" for c in mine]
        lines.append("")
        for claim in mine:
            lines += section(claim)
            if claim["id"] in drawn:
                name = drawn[claim["id"]]
                lines += [f"![{PICTURES[name][0]}](images/reproduction/{name}.png)", ""]
        for name, (experiment, _, _, _, title) in CURVES.items():
            if experiment.startswith(key):
                lines += [f"![{title}](images/reproduction/{name}.png)", ""]
    lines += [
        "## Recorded runs",
        "",
        "| experiment | form | tasks | seeds | CPU s | versions |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs():
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        seeds = ", ".join(map(str, run["seeds"]))
        lines.append(
            f"| `{run['experiment']}` | {run['form']} | {run['tasks']} | {seeds} | {run['cpu_seconds']} | {versions} |"
        )
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ pictures
def dots(path: Path, title: str, found: Sequence[Mapping[str, Any]]) -> None:
    """One line a figure: ours as a dot with its interval, the published value as a cross."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.3 * len(found)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(found):
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color="tab:blue", linewidth=2, alpha=0.5)
        axes.plot(row["value"], place, "o", color="tab:blue", label="ours" if place == 0 else None)
    crosses = [(row["published"], k) for k, row in enumerate(found) if isinstance(row["published"], int | float)]
    if crosses:
        axes.plot(*zip(*crosses, strict=True), "x", color="tab:red", markersize=8, label="published", linestyle="none")
    axes.set_yticks(range(len(found)), [row["what"] for row in found], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=10)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def lines_of(path: Path, name: str) -> None:
    """A line a policy, from the recorded curves."""
    from matplotlib.figure import Figure

    experiment, begin, end, across, title = CURVES[name]
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for row in table(f"reproduction/{experiment}.csv"):
        if row["measure"].startswith(begin) and row["measure"].endswith(end) and row["curve"]:
            values = [float(part) for part in row["curve"].split()]
            axes.plot(range(1, len(values) + 1), values, label=row["measure"].removeprefix(begin).removesuffix(end))
    axes.set(xlabel=across, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def pictures() -> None:
    """All pictures of the page."""
    known = {claim["id"]: claim for claim in claims()["claims"]}
    for name, (title, members) in PICTURES.items():
        chosen = [(member, f) for member in members for f in known[member]["figures"]]
        chosen = [(member, f) for member, f in chosen if LEFT_OUT.get(name, "\n") not in f["what"]]
        several = len(members) > 1
        said = [f"{member.partition('-')[2]}: {f['what']}" if several else f["what"] for member, f in chosen]
        dots(IMAGES / f"{name}.png", title, [{**read(f), "what": w} for (_, f), w in zip(chosen, said, strict=True)])
    for name in CURVES:
        lines_of(IMAGES / f"{name}.png", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true", help="draw the pictures anew")
    if parser.parse_args().pictures:
        pictures()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
