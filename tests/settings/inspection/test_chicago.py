"""The city's records, from the file to calendars in five commands: those of the page on inspections."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from command_line import run

ROOT = Path(__file__).resolve().parents[3]
CHICAGO = next(
    (
        folder / "shared" / "data" / "chicago" / "inspection_pairs.csv"
        for folder in ROOT.parents
        if (folder / "shared" / "data" / "chicago" / "inspection_pairs.csv").is_file()
    ),
    None,
)
PAGE = (ROOT / "docs" / "inspection.md").read_text(encoding="utf-8")


def block(language: str, marked: str) -> str:
    """The block of the page that holds some words."""
    return next(part for part in PAGE.split(f"```{language}\n")[1:] if marked in part).partition("```")[0]


def season(folder: Path, most: int | None) -> list[str]:
    """The page's five commands, each in its words, on the first ``most`` records."""
    assert CHICAGO is not None
    lines = CHICAGO.read_text(encoding="utf-8").splitlines()
    (folder / "inspection_pairs.csv").write_text("\n".join(lines[: None if most is None else most + 1]) + "\n")
    (folder / "city.yaml").write_text(block("yaml", "title: Food inspections"))
    staff = ["id,capacity", *(f"inspector{k:02d},4" for k in range(30))]
    (folder / "staff.csv").write_text("\n".join(staff) + "\n")
    commands = [line for line in block("sh", "inspection_pairs.csv").splitlines() if line]
    assert len(commands) == 5
    said = []
    for command in commands:
        assert command.startswith("rmab-opt ")
        done = run(*shlex.split(command.removeprefix("rmab-opt ")))
        assert done.code == 0, done.err
        said.append(done.out)
    return said


@pytest.mark.skipif(CHICAGO is None, reason="the shared data folder is not here")
@pytest.mark.parametrize("most", [pytest.param(400), pytest.param(None, marks=pytest.mark.slow)])
def test_five_commands_from_the_city_s_file_to_calendars(tmp_path, most, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = season(tmp_path, most)
    shown = "not shown" not in said[0]
    # All the records, with the city's features, show none: that is said, and not sold.
    assert most is not None or not shown
    with (tmp_path / "arms.csv").open(newline="", encoding="utf-8-sig") as file:
        arms = list(csv.DictReader(file))
    assert {"id", "class", "persistence_low", "persistence_high"} <= set(arms[0])
    same = [float(row["stay_good"]) == pytest.approx(float(row["recover"]), abs=2e-6) for row in arms]
    assert not any(same) if shown else all(same)
    assert "low end" in said[2]
    assert ("memory is not shown" in said[2]) != shown
    with (tmp_path / "plan" / "visits.csv").open(newline="", encoding="utf-8-sig") as file:
        visits = list(csv.DictReader(file))
    assert {row["id"] for row in visits} == {row["id"] for row in arms}
    assert "complaint" in said[3]
    assert "moved" in said[4]
    calendars = sorted((tmp_path / "plan" / "ics").glob("*.ics"))
    events = sum(path.read_bytes().count(b"BEGIN:VEVENT") for path in calendars)
    assert len(calendars) >= 2
    assert events == len(visits)
    # One file a line of the log, and the log's head.
    log = [json.loads(path.read_text()) for path in sorted((tmp_path / "plan" / "log").glob("*.json"))]
    assert sum(entry.get("event") == "planned" for entry in log) == 3
