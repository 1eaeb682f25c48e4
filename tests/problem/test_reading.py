"""What is written is read back the same, and what fits two readings is refused."""

from __future__ import annotations

import csv
import datetime
import io
import string

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.catalog import copy_model
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.problem.table import Conventions, readings
from rmab_opt.report import table_csv, workbook

TEXT = st.text(
    st.sampled_from(string.ascii_letters + string.digits
    + " ,;\t|#'\"=+-@_.\n" + "éßИगाँव½\u2019\u2212"), min_size=1, max_size=9
).map(str.strip).filter(bool)  # fmt: skip
NUMBER = st.one_of(
    st.floats(-1e6, 1e6).map(lambda x: round(x, 4) + 0.0),
    st.integers(-(10**6), 10**6).map(lambda n: n / 1000),
    st.floats(-1e15, 1e15, allow_subnormal=False).map(lambda x: x + 0.0),
)
CELLS = st.lists(st.tuples(TEXT, TEXT, NUMBER), min_size=1, max_size=8)


def of_bytes(folder, data: bytes, name: str = "t.csv", **options) -> Table:
    path = folder / name
    path.write_bytes(data)
    return Table.read(path, **options)


@settings(max_examples=80, deadline=None)
@given(cells=CELLS, bom=st.booleans())
def test_csv_out_reads_back_the_same(cells, bom, tmp_path_factory):
    rows = [{"id": one, "note": two, "worth": worth} for one, two, worth in cells]
    data = ("\ufeff" if bom else "").encode() + table_csv(rows).encode()
    table = of_bytes(tmp_path_factory.mktemp("out"), data, needed=("id", "note"))
    assert table.text("id") == [row["id"] for row in rows]
    assert table.text("note") == [row["note"] for row in rows]
    assert table.numbers("worth").tolist() == [row["worth"] for row in rows]
    plain = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))[1:]
    assert not any(cell[:1] in ("=", "@") for row in plain for cell in row[:2])


@settings(max_examples=30, deadline=None)
@given(cells=CELLS)
def test_a_workbook_out_reads_back_the_same(cells, tmp_path_factory):
    rows = [["id", "note", "worth"], *(list(row) for row in cells)]
    table = of_bytes(tmp_path_factory.mktemp("out"), workbook({"actions": rows}), "t.xlsx", needed=("id", "note"))
    assert table.text("id") == [row[0] for row in cells]
    assert table.text("note") == [row[1] for row in cells]
    # Workbooks keep sixteen digits of a number, CSV all of them.
    assert table.numbers("worth").tolist() == pytest.approx([row[2] for row in cells], rel=1e-15, abs=0)


@given(
    values=st.lists(st.integers(0, 10**9).map(lambda n: n / 100), min_size=1, max_size=6),
    comma=st.booleans(),
    grouped=st.booleans(),
)
def test_numbers_are_read_as_they_were_written(values, comma, grouped):
    written = [f"{value:,.2f}" if grouped else f"{value:.2f}" for value in values]
    if comma:
        written = [text.translate(str.maketrans(",.", ".,")) for text in written]
    assert Table({"n": written}).numbers("n").tolist() == values


@given(whole=st.integers(1, 999), part=st.integers(100, 999), mark=st.sampled_from(".,"))
def test_a_cell_with_two_readings_is_refused_unless_something_decides(whole, part, mark):
    text = f"{whole}{mark}{part}"
    with pytest.raises(ModelError, match="both readings possible"):
        Table({"n": [text]}).numbers("n")
    with readings(Conventions(decimal="comma")):
        told = Table({"n": [text]})
    assert told.numbers("n").tolist() == [float(f"{whole}.{part}") if mark == "," else whole * 1000 + part]
    beside = Table({"n": [text, ""], "other": ["0,5", ""]})
    assert beside.numbers("n", missing=True)[0] == told.numbers("n")[0]
    assert Table({"n": [float(f"{whole}.{part}")]}).numbers("n")[0] == float(f"{whole}.{part}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encoding_delimiter_and_line_ends_do_not_matter(tmp_path, encoding, delimiter, end):
    rows = [["id", "Straße", "n"], ["#1", "Île", "1"], ["007", "a\nb", "2"], ["12_34", 'say "x"', "3"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    table = of_bytes(tmp_path, text.getvalue().encode(encoding))
    assert table.columns == {"id": ["#1", "007", "12_34"], "Straße": ["Île", "a\nb", 'say "x"'], "n": ["1", "2", "3"]}
    assert [table.place(row) for row in range(3)] == (["2", "3", "5"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id\x81,x\na,1\n", "t.csv:1: byte 81"),
        (b"id,x\na,\x00 and more text\n", "binary data"),
        (b'id,x\na,"1\n', "t.csv:2: a quoted cell does not end"),
        (b"1,2\n3,4\n", "there is no header line"),
        (b"PK\x03\x04 no zip", "broken workbook"),
        (b"id,x\na,1,2\n", "t.csv:2: 3 cells, the header has 2"),
        (b"id,Id\na,1\n", "stands twice"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(tmp_path, data, message):
    with pytest.raises(ModelError) as caught:
        of_bytes(tmp_path, data)
    assert message in str(caught.value)


@pytest.mark.parametrize("left", [b"PK", b"PK\x03", b"\x05\xf1\xb9\x1e>\n", b"7\x96\xc6\xbcP\xae\x82{\x01"])
def test_what_is_left_of_a_workbook_is_not_read_as_text(tmp_path, left):
    book, text = tmp_path / "t.xlsx", tmp_path / "u.xlsx"
    book.write_bytes(left)
    with pytest.raises(ModelError, match="is no workbook that can be read"):
        Table.read(book)
    # An export that only bears the name is text all the same.
    text.write_bytes(b"id;a\nb;1\n")
    assert Table.read(text).text("id") == ["b"]


def test_typed_cells_are_believed(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["Register"],
        ["id", "day", "share", "n"],
        [7, datetime.date(2026, 4, 3), 0.125, 1.234],
        ["#8", None, 1, 2],
    ):
        sheet.append(row)
    sheet["A3"].number_format = "00000"
    sheet["D4"] = "=1+1"
    book.create_sheet("empty")
    path = tmp_path / "t.csv"
    book.save(path)
    table = Table.read(path, needed=("id",))
    assert table.text("id") == ["00007", "#8"]
    assert table.dates("day") == [datetime.date(2026, 4, 3), None]
    assert table.numbers("share").tolist() == [0.125, 1.0]
    with pytest.raises(ModelError, match="formula without a stored value"):
        table.numbers("n")
    assert table.place(0) == "3"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_are_tables(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"id": ["a", "#2", "007"], "state": [0, 1, 0], "cost": [1.234, None, 2.0]})
    table = Table.read(frame)
    assert table.text("id") == ["a", "#2", "007"]
    assert table.text("state") == ["0", "1", "0"]
    assert np.array_equal(table.numbers("cost", missing=True), [1.234, np.nan, 2.0], equal_nan=True)
    assert Arms(frame).ids == ("a", "#2", "007")
    model = ro.load("budget", n_arms=3)
    named = frame.rename(columns={}) if library == "pandas" else frame
    problem = model.problem
    mapping = dict(zip(["a", "#2", "007"], problem.arms.ids, strict=True))
    renamed = frames.DataFrame({"id": [mapping[name] for name in named["id"]], "state": [0, 1, 0]})
    assert model.state(renamed).tolist() == [0, 1, 0]


def test_rows_of_totals_and_equal_rows_go_with_a_word(tmp_path):
    table = of_bytes(tmp_path, b"id,visits\na,2\nb,3\nb,3\nTotal,8\n,8\n")
    kept = table.without_totals("id").one_a_key("id")
    assert kept.text("id") == ["a", "b"]
    assert [remark.line for remark in kept.log.remarks] == [5, 6, 4]
    with pytest.raises(ModelError, match="looks like a row of totals"):
        of_bytes(tmp_path, b"id,visits\na,2\nTotal,3\nb,3\n").without_totals("id")
    with pytest.raises(
        ModelError, match=r"t.csv:3: id 'a' stands in row 2 already, with visits '2' there and '3' here"
    ):
        of_bytes(tmp_path, b"id,visits\na,2\na,3\n").one_a_key("id")


def test_a_misspelt_optional_column_is_refused_and_others_are_noted():
    with pytest.raises(ModelError, match=r"column 'cals' is not known.*'calls'"):
        Table({"worker": ["w"], "cals": [1]}).only(("worker", "calls"))
    table = Table({"worker": ["w"], "Calls": [1], "remark": [""]}).only(("worker", "calls"))
    assert table.numbers("calls").tolist() == [1.0]
    assert [remark.column for remark in table.log.remarks] == ["remark"]


def test_a_part_of_a_table_is_read_as_the_whole():
    table = Table({"n": ["20.148", "1.250.000"], "more": ["x", "y"]})
    assert table.head(1).numbers("n").tolist() == [20148.0]
    assert table.take([1, 0, 0]).with_columns({"id": ["a", "b", "c"]}).numbers("n").tolist() == [1.25e6, 20148, 20148]


def test_faults_of_all_files_are_reported_at_once(tmp_path):
    folder = tmp_path / "demo"
    copy_model("weekly_calls", folder)
    for name, old, new in (("arms.csv", "p002,", "p001,"), ("roster.csv", ",2", ",x")):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    text = (folder / "transitions.csv").read_text().splitlines()
    text[2] = text[2].replace("0.", "z.", 1)
    (folder / "transitions.csv").write_text("\n".join(text) + "\n")
    with pytest.raises(ModelError) as caught:
        ro.load(folder / "model.yaml")
    said = str(caught.value)
    for words in ("arms.csv:4", "'p001'", "transitions.csv:3"):
        assert words in said, said


FUZZ = st.one_of(
    st.binary(max_size=200),
    st.text(st.sampled_from("ab1,;\t|#\"'\n\r .=é\ufeff\x00\u2028"), max_size=120).map(lambda text: text.encode()),
    st.text(st.sampled_from("ab1,;\n\"é"), max_size=60).map(lambda text: text.encode("utf-16")),
)  # fmt: skip


def fuzz_of_tables(data: bytes, folder) -> None:
    """No exception but ours, and every cell that plain csv finds in a row of ours is there."""
    try:
        table = of_bytes(folder, data)
    except ModelError:
        return
    for name in table.columns:
        for ask in (table.numbers, table.dates, table.yes_no, table.categories, table.lists):
            try:
                ask(name)
            except ModelError:
                continue
    lines = len(table) + len(table.log.remarks) + len(table.log.blank)
    read = [line for line in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n") if line.strip()]
    if b'"' not in data and b"\x00" not in data:
        assert lines + 1 >= len([line for line in read if line.strip(b" ,;\t|\xef\xbb\xbf")]) - 1


@settings(max_examples=amount(100, 300), deadline=2000)
@given(data=FUZZ)
def test_any_bytes_are_a_table_or_refused(data, tmp_path_factory):
    fuzz_of_tables(data, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=50_000, deadline=2000)
@given(data=FUZZ)
def test_fifty_thousand_inputs_are_tables_or_refused(data, tmp_path_factory):
    fuzz_of_tables(data, tmp_path_factory.getbasetemp())
