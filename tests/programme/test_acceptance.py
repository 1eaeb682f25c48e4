"""Section 7 of the specification of programmes, line by line: which test shows what; and right values nobody else has.

Lines whose test is slow are run by `make test-all`; the shared sheets are not part of the project, and tests that need
them are skipped without them.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from programmes import FOLDER, needs_data

from rmab_opt.problem import Table
from rmab_opt.programme.columns import LogColumns
from rmab_opt.programme.estimate import read_log

TESTS = Path(__file__).parents[1]

LINES = {
    "1 all 49 cases": ["problem/test_sheets.py::test_a_column_is_read_or_refused_as_the_specification_says"],
    "1 all of right_values.json": [
        "problem/test_sheets.py::test_the_register_is_read_whole",
        "programme/test_acceptance.py::test_every_right_value_of_the_register",
        "programme/test_acceptance.py::test_every_right_value_of_roster_and_log",
        "programme/test_start.py::test_the_shared_programme_from_workbook_to_week_28",
    ],
    "1 xlsx, ods, cp1252, UTF-16, frames": [
        "problem/test_sheets.py::test_the_first_twelve_are_the_same_in_every_form",
        "programme/test_acceptance.py::test_frames_give_the_same_cells",
    ],
    "2 rows in = rows used + rows in the change log": [
        "programme/test_acceptance.py::test_no_row_is_lost_silently",
        "problem/test_sheets.py::test_what_was_dropped_from_the_register_is_in_its_log",
    ],
    "2 the ids with # are in cohort, log and list": [
        "programme/test_start.py::test_a_list_from_messy_sheets_does_not_depend_on_the_order_of_rows",
        "programme/test_start.py::test_the_shared_programme_from_workbook_to_week_28",
    ],
    "3 one command, then one more": [
        "programme/test_start.py::test_the_shared_programme_from_workbook_to_week_28",
        "programme/test_other_sheets.py::test_a_french_programme_with_dated_weeks_ticks_and_a_worker_in_three_spellings",
    ],
    "3 unchanged under any re-sorting": [
        "programme/test_start.py::test_a_list_from_messy_sheets_does_not_depend_on_the_order_of_rows",
        "programme/test_other_sheets.py::test_the_order_of_rows_does_not_choose_between_spellings",
    ],
    "4 chapter 2 over seeds 0-19": [
        "programme/test_estimate.py::test_targets_of_the_specification_over_twenty_seeds",
        "programme/test_estimate.py::test_with_random_calls_the_call_term_costs_nothing",
    ],
    "4 ranges for the shared log": ["programme/test_estimate.py::test_the_shared_log_has_its_right_values"],
    "4 chapter 3 to 1e-6": [
        "planning/test_living.py::test_the_season_budget_has_its_exact_values",
        "planning/test_living.py::test_season_totals_side_by_side",
        "planning/test_living.py::test_an_unknown_first_state_is_planned_by_expected_gain",
        "planning/test_living.py::test_arrivals_in_the_bound",
    ],
    "4 no mean above its bound": ["programme/test_start.py::test_the_shared_programme_from_workbook_to_week_28"],
    "5 doubly robust on 100 logs": [
        "programme/test_off_policy.py::test_doubly_robust_over_a_hundred_logs_with_right_and_wrong_tables"
    ],
    "5 the trial calculator": [
        "programme/test_trial.py::test_the_worked_figures",
        "programme/test_trial.py::test_simulated_power_and_false_alarms",
    ],
    "6 refusals name place and remedy": [
        "problem/test_sheets.py::test_two_rows_of_one_id_that_differ_are_refused",
        "programme/test_estimate.py::test_weeks_are_numbers_iso_weeks_or_dates_and_rows_do_not_contradict",
        "programme/test_other_sheets.py::test_one_column_a_week_needs_a_legend_and_says_which",
    ],
    "6 sentences of 2.4, when they hold and only then": [
        "programme/test_estimate.py::test_the_shared_log_has_its_right_values",
        "programme/test_estimate.py::test_few_calls_are_said_with_the_weeks_that_would_help",
        "programme/test_acceptance.py::test_memory_is_said_where_there_is_one_and_only_there",
        "programme/test_acceptance.py::test_a_list_is_doubted_where_draws_disagree_and_only_there",
        "programme/test_acceptance.py::test_a_call_never_hurts_only_when_asked",
    ],
}


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_section_7_has_its_tests(line):
    for name in LINES[line]:
        path, _, test = name.partition("::")
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def right() -> dict:
    return json.loads((FOLDER / "right_values.json").read_text(encoding="utf-8"))


def family_sheet(name: str) -> Table:
    return Table.read(FOLDER / name, needed=["Family ID"]).without_totals("Family ID").one_a_key("Family ID")


@needs_data
def test_every_right_value_of_the_register():
    values, table = right(), family_sheet("families.csv")
    assert (len(table), len(table.columns)) == (values["rows"], values["columns"])
    sums = {"income": "Income", "minutes": "Minutes", "listened": "Listened", "distance_km": "Distance"}
    numbers = {own: table.numbers(column, missing=True) for own, column in sums.items()}
    for own, cells in numbers.items():
        assert np.nansum(cells) == pytest.approx(values["families_csv_sums"][own], abs=1e-6)
    pregnant = table.yes_no("Pregnant")
    assert sum(value is True for value in pregnant) == values["pregnant_yes"]
    kinds = {"Status": {**values["status"], "": values["status"]["missing"]}, "Type": values["types"]}
    for column, counts in (*kinds.items(), ("Village", values["villages"])):
        found = table.categories(column)
        assert {kind: found.count(kind) for kind in set(found)} == {k: n for k, n in counts.items() if k != "missing"}
    assert table.text("Phone").count("") == values["no_phone"]
    ids, status, slots = table.text("Family ID"), table.categories("Status"), table.lists("Slots")
    days = {own: table.dates(column) for own, column in (("registered", "Registered"), ("last_visit", "Last visit"))}
    for one in values["selected"]:
        row = ids.index(one["id"])
        assert table.categories("Village")[row] == one["village"]
        assert table.categories("Type")[row] == one["type"]
        assert {own: column[row].isoformat() for own, column in days.items()} == {own: one[own] for own in days}
        for own, cells in numbers.items():
            assert (None if np.isnan(cells[row]) else cells[row]) == (
                None if one[own] is None else pytest.approx(one[own])
            )
        assert pregnant[row] is one["pregnant"]
        assert (status[row] or None, table.text("Phone")[row] or None) == (one["status"], one["phone"])
        assert list(slots[row]) == one["slots"]


@needs_data
def test_every_right_value_of_roster_and_log():
    values = right()
    roster = Table.read(FOLDER / "roster.csv", needed=["worker"]).without_totals("worker")
    assert (len(roster), roster.numbers("calls").sum()) == (values["roster_rows"], values["roster_calls"])
    table = Table.read(FOLDER / "call_log.csv")
    log = read_log(table, LogColumns(id="id", week="week", called="called", listened="listened"))
    assert len(table) == values["log_rows"]
    assert ((log.called == 1).sum(), (log.seen == 1).sum()) == (values["log_called"], values["log_listened"])
    truth = Table.read(FOLDER / "truth.csv")
    assert sum(value is True for value in truth.yes_no("week27")) == values["week27_engaged"]


@needs_data
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_give_the_same_cells(kind):
    module = pytest.importorskip(kind)
    whole = family_sheet("families.csv").head(12)
    frame = module.DataFrame({name: list(cells) for name, cells in whole.columns.items()})
    found = Table.read(frame)
    assert found.text("Family ID") == whole.text("Family ID")
    for column in ("Minutes", "Listened", "Distance"):
        assert found.numbers(column).tolist() == whole.numbers(column).tolist()
    assert found.yes_no("Pregnant") == whole.yes_no("Pregnant")


@needs_data
@pytest.mark.parametrize(
    ("name", "key"),
    [("families.csv", "Family ID"), ("families.xlsx", "Family ID"), ("roster.csv", ""), ("call_log.csv", "")],
)
def test_no_row_is_lost_silently(name, key):
    """Lines of the sheet = header + rows used + rows in the change log (each dropped row has its line there)."""
    table = Table.read(FOLDER / name, needed=[key] if key else [])
    used = table.without_totals(key or next(iter(table.columns)))
    used = used.one_a_key(key) if key else used
    dropped = len(table) - len(used)
    said = [str(remark) for remark in used.log.remarks]
    rows = [line for line in said if "total" in line.casefold() or "the same row as" in line]
    assert len(rows) == dropped == {"families.csv": 3, "families.xlsx": 1, "roster.csv": 1, "call_log.csv": 0}[name]


# -------------------------------------------------------------------------------------------- sentences of section 2.4
def made_of(rows: np.ndarray, calls: np.ndarray):
    from rmab_opt.programme.estimate import CallLog, Member, estimate

    ids = tuple(f"f{n:03d}" for n in range(len(rows)))
    return estimate(CallLog(ids, tuple(range(rows.shape[1])), rows, calls), {name: Member("all") for name in ids})


def world(memory: bool, uplift: float = 0.4, n: int = 200, weeks: int = 40):
    rng = np.random.default_rng(0)
    state, called = np.zeros((n, weeks), dtype=int), (rng.random((n, weeks)) < 0.2).astype(int)
    for w in range(1, weeks):
        chance = 0.3 + uplift * called[:, w - 1] + 0.2 * state[:, w - 1]
        if memory and w > 1:
            chance = np.where(state[:, w - 2] == 1, 0.85, 0.15) + 0.05 * called[:, w - 1]
        state[:, w] = rng.random(n) < np.clip(chance, 0.02, 0.98)
    return state, called


def test_memory_is_said_where_there_is_one_and_only_there():
    with_one = [line for line in made_of(*world(memory=True)).warnings() if line.startswith("memory")]
    assert len(with_one) == 1
    assert "states that look back on more weeks would say more" in with_one[0]
    assert not [line for line in made_of(*world(memory=False)).warnings() if line.startswith("memory")]


def test_a_call_never_hurts_only_when_asked():
    state, called = world(memory=False, uplift=-0.1)
    made = made_of(state, called)
    assert made.uplifts()[0]["uplift"] < -0.03
    assert made.warnings()[0].startswith("not shown: that calls help all/away")
    ordered = made.never_hurting()
    up = ordered.fit.draws[..., 0]
    assert (up[:, :, 1] >= up[:, :, 0]).all()
    assert ordered.transition[..., 1] == pytest.approx(up.mean(axis=0), abs=1e-6)
    # Draws in which a call helps stay as they were; elsewhere the mean of both chances stands for both.
    kept = made.fit.draws[..., 0]
    helps = kept[:, :, 1] >= kept[:, :, 0]
    assert (up[:, :, 1][helps] == kept[:, :, 1][helps]).all()
    assert up.sum(axis=2) == pytest.approx(kept.sum(axis=2), abs=1e-5)


def test_a_list_is_doubted_where_draws_disagree_and_only_there():
    from rmab_opt.programme.stability import Stability

    sure = Stability({"a": 1.0, "b": 0.8, "c": 0.5}, 40, (1.0, 2.0))
    assert (sure.sure, sure.likely) == (2, 3)
    assert len(sure.lines()) == 1
    doubted = Stability({"a": 1.0, "b": 0.4, "c": 0.3}, 40, (1.0, 2.0))
    assert doubted.lines()[1].startswith("not enough data for a list")
    assert Stability({}, 40, (0.0, 0.0)).lines() == []


@needs_data
@pytest.mark.slow
def test_the_shared_list_is_as_sure_as_the_specification_measured(tmp_path):
    """Spec 2.4: of 60 chosen, 44 in at least 80 % of the draws, 60 in at least half, mean 0.83."""
    from rmab_opt.programme.columns import PlanSection
    from rmab_opt.programme.folder import start

    plan = PlanSection(calls=60)
    week = start(FOLDER / "families.xlsx", tmp_path / "own", log=FOLDER / "call_log.csv", plan=plan)
    said = next(line for line in week.said if "on the list" in line)
    numbers = [int(word) for word in said.replace(",", "").split() if word.isdigit()]
    assert numbers[0] == 60
    assert numbers[1] >= 38
    assert " in at least half (mean 0." in said
    assert float(said.split("(mean ")[1][:4]) >= 0.75
