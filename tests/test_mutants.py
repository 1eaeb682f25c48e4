"""The tool that breaks the package: what each operator changes, that draws repeat, its verdicts on a tiny tree."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "scripts" / "mutants.py"
if not FILE.exists():
    pytest.skip("the scripts are not part of this installation", allow_module_level=True)
_spec = importlib.util.spec_from_file_location("mutants", FILE)
mutants = importlib.util.module_from_spec(_spec)
sys.modules["mutants"] = mutants
_spec.loader.exec_module(mutants)


def changed(text: str) -> list[tuple[str, str]]:
    """(operator, text afterwards) of every site."""
    return [(m.operator, m.broken(text)) for m in mutants.sites("rmab_opt/x.py", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", [("comparison", "a <= b")]),
        ("a >= b", [("comparison", "a > b")]),
        ("a == b", [("comparison", "a != b")]),
        ("a in b", [("comparison", "a not in b")]),
        ("a is None", [("comparison", "a is not None")]),
        ("a < b <= c", [("comparison", "a <= b <= c"), ("comparison", "a < b < c")]),
        ("(a) < (\n    b)", [("comparison", "(a) <= (\n    b)")]),
        ("(a  # is < here\n < b)", [("comparison", "(a  # is < here\n <= b)")]),
        ("a + b", [("arithmetic", "a - b")]),
        ("é * b", [("arithmetic", "é / b")]),
        ("a // b", [("arithmetic", "a / b")]),
        ("a ** b", [("arithmetic", "a * b")]),
        ("a @ b", []),
        ("'a' + b", []),
        ("[a] + b", []),
        ("a[0]", [("index", "a[1]")]),
        ("a[-1]", [("index", "a[-2]")]),
        ("a[1:]", [("index", "a[2:]")]),
        ("a[:, 2]", [("index", "a[:, 3]")]),
        ("a[k]", []),
        ("a['k']", []),
        ("a[True]", []),
        ("x: tuple[int, 3] = 1", []),
        ("def f(x: a[0] = b[1]) -> c[2]:\n    pass", [("index", "def f(x: a[0] = b[2]) -> c[2]:\n    pass")]),
        ("if a:\n    raise E(\n        'no')", [("raise", "if a:\n    pass")]),
        ("try:\n    f()\nexcept E:\n    raise", []),
    ],
)
def test_each_operator_changes_what_it_says(text, expected):
    assert changed(text) == expected
    for _, after in expected:
        compile(after, "x", "exec")


def test_a_mutant_says_its_line_before_and_after():
    (m,) = mutants.sites("rmab_opt/x.py", "if True:\n    y = a < b\n")
    assert (m.line, m.column, m.old, m.new, m.token) == (2, 10, "y = a < b", "y = a <= b", "<")
    with pytest.raises(mutants.MutantError, match="no longer stands there; draw again"):
        m.broken("if True:\n    y = b\n")


@pytest.fixture
def tree(tmp_path):
    """Two rooms; the tests notice a changed sign and a dropped error, not a changed limit."""
    for name, text in {
        "rmab_opt/__init__.py": "",
        "rmab_opt/problem/__init__.py": "",
        "rmab_opt/problem/one.py": "def f(a, b):\n    if a > 100:\n        raise ValueError(a)\n    return a + b\n",
        "rmab_opt/settings/__init__.py": "",
        "rmab_opt/settings/equity/__init__.py": "",
        "rmab_opt/settings/equity/two.py": "def g(n):\n    while n > 0:\n        n = n - 1\n    return n\n",
        "rmab_opt/report.py": "x = 1 + 1\n",
        "tests/problem/test_one.py": (
            "import pytest\nfrom rmab_opt.problem.one import f\n\ndef test_f():\n    assert f(1, 2) == 3\n"
            "    with pytest.raises(ValueError):\n        f(101, 0)\n"
        ),
        "tests/settings/equity/test_other.py": (
            "from rmab_opt.settings.equity.two import g\n\ndef test_g():\n    assert g(3) == 0\n"
        ),
        "scripts/mutants_named.json": json.dumps(
            {
                "named": [
                    {"name": "sum", "file": "rmab_opt/moved.py", "old": "return a + b", "new": "return a", "tests": []}
                ],
                "equivalent": [],
            }
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_draw_repeats_and_is_even(tree):
    first = mutants.draw(tree, seed=1, count=4)
    assert first == mutants.draw(tree, seed=1, count=4)
    assert sorted({mutants.room_of(m.file) for m in first}) == ["problem", "settings/equity"]
    # Of five sites, two turns take two of each room; reports are no room.
    assert [sum(m.file.endswith(name) for m in first) for name in ("one.py", "two.py", "report.py")] == [2, 2, 0]
    assert len(mutants.draw(tree, seed=1, count=99)) == 5
    draws = {tuple(m.key for m in mutants.draw(tree, seed=seed, count=2)) for seed in range(20)}
    assert len(draws) > 1


def test_the_nearest_tests(tree):
    assert mutants.nearest(tree, "rmab_opt/problem/one.py") == ("tests/problem/test_one.py",)
    assert mutants.nearest(tree, "rmab_opt/settings/equity/two.py") == ("tests/settings/equity",)
    with pytest.raises(mutants.MutantError, match="no tests are near"):
        mutants.nearest(tree, "rmab_opt/search/x.py")


def test_the_named_ones_follow_moved_files_and_miss_no_lost_text(tree):
    (m,) = mutants.named(tree)
    assert (m.file, m.name, m.tests) == ("rmab_opt/problem/one.py", "sum", ("tests/problem/test_one.py",))
    assert "return a\n" in m.broken((tree / m.file).read_text())
    (tree / "rmab_opt/copy.py").write_text("def f(a, b):\n    return a + b\n")
    with pytest.raises(mutants.MutantError, match=r"sum: the text 'return a \+ b' stands in .*copy.py .*one.py"):
        mutants.named(tree)
    (tree / "rmab_opt/copy.py").unlink()
    (tree / "rmab_opt/problem/one.py").write_text("")
    with pytest.raises(mutants.MutantError, match="stands in no file"):
        mutants.named(tree)


def test_drawn_ones_follow_their_lines_and_miss_those_that_changed(tree):
    assert mutants.main(["--draw", "--count", "99"], tree) == 0
    path = tree / "rmab_opt/problem/one.py"
    before = {m.what: m.line for m in mutants.drawn(tree)}
    path.write_text("# A note.\n\n" + path.read_text())
    after = {m.what: m.line for m in mutants.drawn(tree)}
    assert after == {what: line + 2 * what.startswith("rmab_opt/problem") for what, line in before.items()}
    path.write_text(path.read_text().replace("return a + b", "return b + a"))
    with pytest.raises(mutants.MutantError, match=r"'return a \+ b' no longer stands there; repair it in"):
        mutants.drawn(tree)


def test_the_test_file_that_noticed_it_before_runs_first_then_those_that_name_the_module(tree):
    for name, text in {"a": "", "b": "two two", "c": "two", "d": "twofold"}.items():
        (tree / f"tests/settings/equity/test_{name}.py").write_text(text)
    m = mutants.Mutant("rmab_opt/settings/equity/two.py", 1, 0, "raise", "", "", "", "", ("tests/settings/equity",))
    names = [Path(file).stem for file in mutants.ordered(tree, m, "tests/settings/equity/test_d.py")]
    assert names == ["test_d", "test_b", "test_c", "test_other", "test_a"]
    known = "tests/settings/equity/test_other.py"
    assert mutants.ordered(tree, m, f"{known}::test_g")[:2] == (f"{known}::test_g", known)
    assert mutants.ordered(tree, m, f"{known}::test_gone")[0] == known


@pytest.mark.slow
def test_verdicts_on_a_tiny_tree(tree, capsys, monkeypatch):
    """Killed, survived, hanging and equivalent; what has a result is not run again; the tree stays as it was."""
    monkeypatch.setattr(mutants, "SECONDS", 12.0)
    before = (tree / "rmab_opt/problem/one.py").read_text()
    assert mutants.main(["--draw", "--count", "99"], tree) == 0
    assert mutants.main(["--workers", "1"], tree) == 1
    said = capsys.readouterr().out
    verdict = {line.split()[0]: line for line in said.splitlines() if line}
    assert "  - if a > 100:\n  + if a >= 100:" in said
    assert "(hang," in said  # n + 1 never ends
    assert "killed     sum" in said
    # g counts to -1 when its limit changes, which its test notices.
    assert "5 of 6 killed (83.3%), 0 equivalent" in said, verdict
    assert (tree / "rmab_opt/problem/one.py").read_text() == before
    table = json.loads((tree / "scripts/mutants_named.json").read_text())
    table["equivalent"] = [
        {"file": "rmab_opt/problem/one.py", "old": "if a > 100:", "new": "if a >= 100:", "reason": "said so"}
    ]
    (tree / "scripts/mutants_named.json").write_text(json.dumps(table))
    monkeypatch.setattr(mutants, "judge", lambda *_: pytest.fail("run again"))
    assert mutants.main([], tree) == 0
    assert "5 of 5 killed (100.0%), 1 equivalent" in capsys.readouterr().out
    assert mutants.main(["--list", "--only", "raise"], tree) == 0
    listed = capsys.readouterr().out
    assert "raise ValueError(a)" in listed
    assert "sum" not in listed


def test_tests_that_fail_unbroken_are_an_error(tree, capsys):
    (tree / "tests/problem/test_one.py").write_text("def test_no():\n    assert False\n")
    assert mutants.main(["--only", "sum"], tree) == 2
    assert "failed unbroken" in capsys.readouterr().err


def test_the_table_of_this_tree_fits():
    """A named mutant whose text has gone must be noticed when it goes."""
    found = mutants.named(ROOT)
    assert len(found) == 10
    for m in found:
        text = (ROOT / m.file).read_text(encoding="utf-8")
        assert m.broken(text) != text
        compile(m.broken(text), m.file, "exec")


@pytest.mark.slow
def test_what_is_drawn_from_this_tree_compiles():
    everywhere = mutants.draw(ROOT)
    assert len(everywhere) >= mutants.COUNT
    for m in everywhere:
        compile(m.broken((ROOT / m.file).read_text(encoding="utf-8")), m.file, "exec")
