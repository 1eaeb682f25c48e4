"""What single verbs read and print, without the work behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

import rmab_opt as ro
from rmab_opt import overdue, registry
from rmab_opt.cli import common
from rmab_opt.cli.verbs import train
from rmab_opt.cli.verbs.bound import _limits
from rmab_opt.errors import LimitError
from rmab_opt.learning.learners import Lesson


def test_help_says_of_every_verb_what_it_does():
    # Without blanks: lines are broken at them and at hyphens.
    said = "".join(run("--help").out.split())
    for entry in registry.entries("verb"):
        first = "".join((entry.said or entry.make.__doc__).strip().split("\n\n")[0].split())
        assert entry.name + first in said, entry.name


def test_version_is_printed_and_all():
    answer = run("--version")
    assert (answer.code, answer.out, answer.err) == (0, f"rmab-opt {ro.__version__}\n", "")


@pytest.mark.parametrize(
    ("sweep", "limits"),
    [
        ("budget=5:20:5", [5.0, 10.0, 15.0, 20.0]),
        ("money=0:0.3:0.1", [0.0, 0.1, 0.2, 0.3]),
        ("x=1:2:0.75", [1.0, 1.75]),
        ("x=3:3:1", [3.0]),
    ],
)
def test_a_sweep_goes_up_by_its_step_to_its_end(sweep, limits):
    name, found = _limits(sweep)
    assert name == sweep.partition("=")[0]
    assert found == pytest.approx(limits)


def test_a_page_of_another_format_is_refused_before_anything_is_decided(tmp_path):
    answer = run("decide", "budget", "--report", tmp_path / "x.pdf")
    assert answer.code == 2
    assert "unknown format '.pdf'" in answer.err
    assert not list(tmp_path.iterdir())


def test_runs_side_by_side_are_a_table_by_seed_without_digests(tmp_path, monkeypatch):
    def learned(loaded: object, policy: str, out: Path, device: str, seed: int) -> Lesson:
        return Lesson(out, {"folder": f"seed-{seed}", "weights_sha256": "f" * 64, "seconds": 1.5}, "", ())

    monkeypatch.setattr(train, "_learn", learned)
    answer = run("train", "budget", "--seeds", 2, "--seed", 7, "--out", tmp_path, "--jobs", 1)
    assert answer.code == 0, answer.err
    rows = [line.split() for line in answer.out.splitlines()]
    assert rows[0] == ["seed", "folder", "seconds"]
    assert [row[:2] for row in rows if row[0] in ("7", "8")] == [["7", "seed-7"], ["8", "seed-8"]]
    assert "fff" not in answer.out


def test_a_verb_whose_work_goes_on_says_what_is_done_when_its_time_is_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(common, "perf_counter", lambda: now[0])
    due = common.Due(5.0, "the run goes on")
    due("1 of 3 done", True)
    now[0] = 6.0
    due("3 of 3 done", False)
    with pytest.raises(LimitError, match="2 of 3 done in 5 s"):
        due("2 of 3 done", True)
    common.Due(None, "")("1 of 3 done", True)


def test_a_step_of_such_a_verb_is_given_up_in_the_middle(monkeypatch):
    now = [0.0]
    for module in (common, overdue):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    due = common.Due(5.0, "the run goes on")

    def steps(*done):
        with due.work():
            for what in done:
                due(what, True)
            now[0] += 6.0
            overdue.checkpoint()

    with pytest.raises(LimitError, match="no step was done in 5 s") as late:
        steps()
    assert "give more seconds" in late.value.fix
    now[0] = 0.0
    with pytest.raises(LimitError, match="1 of 3 done in 5 s") as late:
        steps("1 of 3 done")
    assert "the run goes on" in late.value.fix
    overdue.checkpoint()
