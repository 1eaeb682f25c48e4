"""Sheets of other programmes: other languages, one column a week, weeks by date, books with several sheets."""

from __future__ import annotations

import csv
from pathlib import Path
from unittest import mock

import numpy as np
import openpyxl
import pytest
from amounts import amount
from command_line import run

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.changes import changes_of_events, is_events
from rmab_opt.programme.columns import (
    LogColumns,
    PlanSection,
    RegisterColumns,
    bare_name,
    infer,
    read_sheet,
    week_file,
    week_label,
    week_number,
)
from rmab_opt.programme.estimate import Member, estimate, read_log
from rmab_opt.programme.folder import next_week, start
from rmab_opt.programme.moves import UNKNOWN

LANGUAGES = {
    "french": (
        ["Code famille", "Nom", "Commune", "Groupe", "Statut", "Téléphone"], ["absente", "engagée"],
        ["Code famille", "Semaine", "Appelée", "Écouté"],
    ),
    "german": (
        ["Familien-Nr.", "Name", "Ort", "Gruppe", "Zustand", "Handy"], ["inaktiv", "Aktiv"],
        ["Familien-Nr.", "KW", "Angerufen", "Gehört"],
    ),
    "spanish": (
        ["Código", "Nombre", "Aldea", "Tipo", "Estado", "Teléfono"], ["ausente", "activa"],
        ["Código", "Semana", "Llamada", "Escuchó"],
    ),
    "swahili": (
        ["Nambari", "Jina", "Kijiji", "Aina", "Hali", "Simu"], ["hapana", "ndiyo"],
        ["Nambari", "Wiki", "Alipigiwa", "Alisikiliza"],
    ),
    "hindi": (["आईडी", "नाम", "गाँव", "प्रकार", "स्थिति", "फोन"], ["नहीं", "हाँ"], ["आईडी", "सप्ताह", "called", "listened"]),
}  # fmt: skip


def write(path: Path, rows: list[list[object]], delimiter: str = ";", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def table(head: list[str], *rows: list[str]) -> Table:
    return Table({name: [row[k] for row in rows] for k, name in enumerate(head)}, source="sheet.csv")


@pytest.mark.parametrize("name", LANGUAGES)
def test_columns_are_known_in_other_languages(name):
    head, (away, engaged), log_head = LANGUAGES[name]
    register = table(head, ["1", "n", "v", "a", away, "7"], ["2", "n", "v", "a", engaged, ""])
    log = table(log_head, ["1", "3", "1", "0"])
    columns = infer(register, log, None, PlanSection(calls=1)).columns
    own = columns.register_
    assert (own.id, own.group, own.state, own.reach) == (head[0], head[3], head[4], head[5])
    assert own.engaged == engaged
    assert own.show == (head[1], head[2])
    assert (columns.log.week, columns.log.called, columns.log.listened) == tuple(log_head[1:])


def test_an_id_of_an_unknown_name_is_where_register_and_log_meet():
    """The cells tell: each member once there, again and again here. Two pairs that could be meant are asked about."""
    register = table(["Kadi", "Namna"], ["k1", "7"], ["k2", "8"], ["k3", "9"])
    log = table(
        ["Mtu", "Wiki", "called", "listened"], ["k1", "3", "1", "0"], ["k2", "3", "0", "0"], ["k1", "4", "0", "1"]
    )
    found = infer(register, log, None, PlanSection(calls=1))
    assert (found.columns.register_.id, found.columns.log.id) == ("Kadi", "Mtu")
    assert "register and log meet in 'Kadi' and 'Mtu': the same members" in found.said
    with pytest.raises(ModelError, match="no column for id"):
        infer(register, None, None, PlanSection(calls=1))
    with mock.patch("rmab_opt.programme.columns._shared_id", side_effect=AssertionError("the name is known")):
        known = table(["id", "Namna"], ["k1", "7"], ["k2", "8"])
        assert (
            infer(
                known,
                log,
                None,
                PlanSection(calls=1),
                {"log": {"id": "Mtu", "week": "Wiki", "called": "called", "listened": "listened"}},
            ).columns.register_.id
            == "id"
        )
    twice = table(["Kadi", "Tena"], ["k1", "k1"], ["k2", "k2"])
    with pytest.raises(ModelError, match="no column for id"):
        infer(twice, log, None, PlanSection(calls=1))


@pytest.mark.parametrize("unknown", amount(["?", "unbekannt"], ["?", "-", "n/a", "Desconocido", "unbekannt"]))
def test_a_state_that_nobody_knows_is_none_of_the_two(tmp_path, unknown):
    rows = [[f"m{k}", ["engaged", "away", unknown][k % 3]] for k in range(30)]
    log = [[f"m{k}", w, (k + w) % 3 == 0, (k * w) % 2] for k in range(30) for w in range(1, 9)]
    sheet = write(tmp_path / "register.csv", [["id", "state"], *rows])
    calls = write(
        tmp_path / "log.csv", [["id", "week", "called", "listened"], *([a, w, int(c), s] for a, w, c, s in log)]
    )
    week = start(sheet, tmp_path / "out", log=calls, plan=PlanSection(calls=3))
    assert "10 states are not known" in str(week)


def test_names_are_compared_without_accents_of_latin_letters_only():
    assert bare_name(" Téléphone_(n°) ") == "telephone"
    assert bare_name("Familien-Nr.") == "familien nr"
    assert bare_name("Ngày") == "ngay"
    assert bare_name("फ़ोन") != bare_name("फोन")


def test_a_week_is_a_number_an_iso_week_or_a_date_and_reads_back():
    assert week_number("KW 7") == week_number("Semaine 7") == week_number("07") == 7
    assert week_number("Paris 7") is None
    monday = week_number("2026-07-06")
    assert monday == week_number("2026-W28") == week_number("2026-07-12")
    assert week_label(monday) == "2026-W28"
    assert week_number(week_label(monday)) == monday
    assert (week_file(7), week_file(monday)) == ("week-07", "week-2026-W28")
    assert week_number("2026-13-40") is None


def test_one_column_a_week_needs_a_legend_and_says_which(tmp_path):
    log = table(["ID", "W1", "W2", "W3", "Sum"], ["a", "CL", "", "N", "9"], ["b", "L", "?", "C", "9"])
    register = table(["ID"], ["a"], ["b"])
    with pytest.raises(ModelError, match="legend") as caught:
        infer(register, log, None, PlanSection(calls=1))
    assert "CL" in str(caught.value)
    legend = {"CL": ["called", "listened"], "C": ["called"], "L": ["listened"], "N": [], "?": ["unknown"]}
    columns = infer(register, log, None, PlanSection(calls=1), {"log": {"legend": legend}}).columns
    found = read_log(log, columns.log)
    assert found.weeks == (1, 2, 3)
    assert found.called.tolist() == [[1, UNKNOWN, 0], [0, UNKNOWN, 1]]
    assert found.seen.tolist() == [[1, UNKNOWN, 0], [1, UNKNOWN, 0]]
    odd = table(["ID", "W1", "W2"], ["a", "CL", "Z"])
    with pytest.raises(ModelError, match="'Z' is not in the legend"):
        read_log(odd, columns.log)
    with pytest.raises(ModelError, match="more than"):
        read_log(
            table(["id", "week", "called", "listened"], ["a", "1", "no", "no"], ["a", "2026-W01", "no", "no"]),
            LogColumns(id="id", week="week", called="called", listened="listened"),
        )


def test_the_sheet_of_a_book_is_chosen_by_what_it_has(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Notas"
    book.active.append(["Exportado"])
    book.active.append(["por Ana"])
    for title, head, row in [
        ("Familias", ["Código", "Nombre", "Estado"], ["1", "Ana", "activa"]),
        ("Llamadas", ["Código", "Semana", "Llamada", "Escuchó"], ["1", "3", "Sí", "No"]),
    ]:
        sheet = book.create_sheet(title)
        sheet.append(head)
        sheet.append(row)
    book.save(tmp_path / "p.xlsx")
    assert read_sheet(tmp_path / "p.xlsx", None, "id", without="called").columns["Nombre"] == ["Ana"]
    assert read_sheet(tmp_path / "p.xlsx", None, "id", "week", "called", "listened").columns["Semana"] == ["3"]
    with pytest.raises(ModelError, match="several sheets could be meant: Notas, Familias, Llamadas"):
        read_sheet(tmp_path / "p.xlsx", None, "id")


def test_an_answer_in_columns_yaml_is_enough_and_the_rest_is_inferred():
    register = table(["ID", "Status"], ["a", "on"], ["b", "off"], ["c", "moved"])
    with pytest.raises(ModelError, match=r"register: \{engaged: WORD\}"):
        infer(register, None, None, PlanSection(calls=1))
    columns = infer(register, None, None, PlanSection(calls=1), {"register": {"engaged": "on"}}).columns
    assert (columns.register_.id, columns.register_.state, columns.register_.engaged) == ("ID", "Status", "on")
    # A section that names its id is whole: nothing is added to it.
    whole = infer(register, None, None, PlanSection(calls=1), {"register": {"id": "ID"}}).columns
    assert whole.register_.state is None
    with pytest.raises(ModelError, match=r"register\.gruop"):
        infer(register, None, None, PlanSection(calls=1), {"register": {"id": "ID", "gruop": "x"}})


def test_the_order_of_rows_does_not_choose_between_spellings():
    one, two = Table({"v": ["Bourg", "bourg"]}), Table({"v": ["bourg", "Bourg"]})
    assert one.categories("v") == two.categories("v") == ["Bourg", "Bourg"]


def test_a_total_that_counts_the_rows_is_one_and_a_wrong_count_is_asked_about():
    rows = [["1", "Ada"], ["2", "Bo"], ["Total", "2 familles"]]
    assert len(table(["Code", "Nom"], *rows).without_totals("Code")) == 2
    rows[2][1] = "3 familles"
    with pytest.raises(ModelError, match="looks like a row of totals"):
        table(["Code", "Nom"], *rows).without_totals("Code")


def test_a_total_may_count_members_where_one_stands_twice():
    rows = [["a", "x"], ["b", "y"], ["a", "x"], ["Total", "2"]]
    assert table(["id", "name"], *rows).without_totals("id").text("id") == ["a", "b", "a"]


def test_events_are_known_in_other_languages_and_by_the_week_of_a_date():
    events = table(
        ["Code", "Événement", "De la semaine", "Jusqu'à la semaine", "Groupe"],
        ["9", "nouvelle", "2026-W28", "", "a"], ["1", "en pause", "2026-07-06", "2026-W30", ""],
        ["2", "sortie", "", "", ""],
    )  # fmt: skip
    assert is_events(events)
    week = week_number("2026-W28")
    found = changes_of_events(events, RegisterColumns(id="Code", group="Groupe"), week)
    assert found.join == {"9": {"group": "a"}}
    assert found.leave == ("2",)
    assert found.pause == {"1": week + 2}
    with pytest.raises(ModelError, match="the next list is week 2026-W29's"):
        changes_of_events(events, RegisterColumns(id="Code", group="Groupe"), week + 1)


def test_a_group_that_was_never_called_borrows_from_the_others_and_says_so():
    rng, rows = np.random.default_rng(0), []
    for n in range(40):
        for w in range(12):
            called = n >= 3 and rng.random() < 0.3
            rows.append([f"f{n:02d}", str(w), "yes" if called else "no", "yes" if rng.random() < 0.5 else "no"])
    log = table(["id", "week", "called", "listened"], *rows)
    members = {f"f{n:02d}": Member("rare" if n < 3 else "common") for n in range(40)}
    made = estimate(read_log(log, LogColumns(id="id", week="week", called="called", listened="listened")), members)
    said = [line for line in made.warnings() if line.startswith("not enough data for a figure: rare")]
    assert len(said) == 2
    assert all("there are no calls to learn from" in line for line in said)


def test_a_french_programme_with_dated_weeks_ticks_and_a_worker_in_three_spellings(tmp_path):
    """Ticks with empty cells for no, slots in another case, weeks by date: start, next, and next again."""
    rng, n, weeks = np.random.default_rng(1), 40, 8
    state, log = rng.integers(0, 2, n), [["Code", "Semaine", "Appelée", "Écouté"]]
    for w in range(weeks):
        called = rng.random(n) < 0.25
        log += [[f"{k:03d}", f"2026-W{20 + w}", "x" if called[k] else "", "x" if state[k] else ""] for k in range(n)]
        state = (rng.random(n) < np.where(called, 0.7, 0.3 + 0.4 * state)).astype(int)
    register = [["Code", "Nom", "Groupe", "Créneaux"], *([f"{k:03d}", f"F{k}", "a", "LUN-matin"] for k in range(n))]
    roster = [["Agente", "Créneau", "Appels"], ["Awa D.", "lun-matin", 2], ["AWA  D.", "lun-matin", 2],
              ["awa d.", "mar-soir", 1], ["Total", "", 5]]  # fmt: skip
    given = [write(tmp_path / f"{name}.csv", rows) for name, rows in
             (("register", register), ("log", log), ("roster", roster))]  # fmt: skip
    told = tmp_path / "columns.yaml"
    told.write_text("tables: {empty: 'no'}\n", encoding="utf-8")
    own = tmp_path / "own"
    week = start(given[0], own, log=given[1], roster=given[2], columns=told, plan=PlanSection(weeks=3))
    assert (week.list_path.name, len(week.decision.chosen)) == ("week-2026-W28.csv", 2)
    assert any("one is kept" in line for line in week.said)
    assert any("of 2 on the list" in line for line in week.said)
    rows = [["Code", "Semaine", "Appelée", "Écouté"], *([name, "2026-W28", "x", ""] for name in week.decision.chosen)]
    after = next_week(own, write(tmp_path / "back.csv", rows))
    assert "2 states seen, taken as of the week's end; 0 calls not made" in after.said
    assert after.list_path.name == "week-2026-W29.csv"
    assert (own / "log.csv").read_text().count("2026-W28") == n
    again = run("next", own, "--outcomes", tmp_path / "back.csv")
    assert again.code == 2
    assert "the list to record is week 2026-W29's" in again.err
    # Two calls of one worker in one slot that differ are no repeated row.
    roster[2][2], roster[4][2] = 3, 6
    write(tmp_path / "roster.csv", roster)
    with pytest.raises(ModelError, match=r"roster\.csv:3: .* stands in slot 'lun-matin' twice, first in row 2"):
        start(given[0], tmp_path / "other", log=given[1], roster=given[2], columns=told, plan=PlanSection(weeks=3))


def test_where_a_row_has_the_calls_result_the_new_week_is_one_row(tmp_path):
    """With same_week the state seen after a call stands beside the call, as in the programme's own log."""
    from programmes import sheets

    given = sheets(tmp_path / "sheets")
    told = tmp_path / "columns.yaml"
    told.write_text("log: {call_acts: same_week}\n", encoding="utf-8")
    own = tmp_path / "own"
    start(given["register"], own, log=given["log"], columns=told, plan=PlanSection(weeks=3, calls=3))
    name = "010"
    next_week(own, write(tmp_path / "back.csv", [["id", "done", "state"], [name, "yes", "engaged"]]))
    rows = {(row["id"], row["week"]): row for row in csv.DictReader((own / "log.csv").open())}
    assert rows[name, "9"] == {"id": name, "week": "9", "called": "yes", "listened": "yes"}
    assert max(int(week) for _, week in rows) == 9


# ------------------------------------------------------------------------------------------- broken on purpose
def small(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(2)
    register = [["id", "Status"], *([f"f{k}", "engaged" if k % 2 else "away"] for k in range(12))]
    log: list[list[object]] = [["id", "week", "called", "listened"]]
    log += [
        [f"f{k}", w, "yes" if rng.random() < 0.3 else "no", "yes" if rng.random() < 0.5 else "no"]
        for k in range(12) for w in range(1, 9)
    ]  # fmt: skip
    return write(folder / "register.csv", register), write(folder / "log.csv", log)


def test_a_register_of_one_row_has_a_list_and_a_log_of_other_ids_is_refused(tmp_path):
    _, log = small(tmp_path)
    one = write(tmp_path / "one.csv", [["id", "Status"], ["f1", "engaged"]])
    week = start(one, tmp_path / "own", log=log, plan=PlanSection(weeks=2, calls=1))
    assert week.possible == 1
    assert any("11 members of the log are not in the register" in line for line in week.said)
    other = write(tmp_path / "other.csv", [["id", "Status"], ["zz", "engaged"], ["zy", "away"]])
    with pytest.raises(ModelError, match="no id of the log is in the register"):
        start(other, tmp_path / "other", log=log, plan=PlanSection(weeks=2, calls=1))


def test_the_same_outcomes_twice_two_at_once_and_a_stop_in_the_middle(tmp_path, monkeypatch):
    from rmab_opt.programme import folder as module
    from rmab_opt.records import held

    register, log = small(tmp_path)
    own, plan = tmp_path / "own", PlanSection(weeks=2, calls=2)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "plan_decision", stop)
        with pytest.raises(KeyboardInterrupt):
            start(register, own, log=log, plan=plan)
    assert not (own / "model.yaml").exists()
    start(register, own, log=log, plan=plan)
    with pytest.raises(ModelError, match="holds a programme already"):
        start(register, own, log=log, plan=plan)
    back = write(tmp_path / "back.csv", [["id", "done", "state"], ["f1", "yes", "engaged"]])
    monkeypatch.setattr("rmab_opt.programme.folder.PATIENCE", 0.2)
    with held(own, "makes the next list here"), pytest.raises(ModelError, match="is in use"):
        next_week(own, back)
    assert next_week(own, back).number == 10
    with pytest.raises(ModelError, match="is the file that was recorded for week 9"):
        next_week(own, back)
    with pytest.raises(ModelError, match="holds no programme"):
        next_week(tmp_path / "nowhere", back)
    assert not (tmp_path / "nowhere").exists()
