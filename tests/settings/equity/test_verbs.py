"""What the verbs say about groups."""

from __future__ import annotations

import json

from command_line import run

SMALL = ("weekly_calls", "--set", "problem.first=14", "--set", "weekly.at_most=3", "--set", "villages.at_least=0")


def test_a_decision_and_its_page_say_what_each_group_gets(tmp_path):
    page = tmp_path / "week.html"
    answer = run("decide", *SMALL, "--groups", "village", "--report", page, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["fairness"]
    assert "By village" in page.read_text(encoding="utf-8")


def test_a_bound_of_groups_and_flags_that_need_groups():
    answer = run("bound", *SMALL, "--groups", "village", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)
    for flag, value in (("--welfare", "nash"), ("--target", "2")):
        answer = run("bound", *SMALL, flag, value)
        assert answer.code == 2
        assert f"{flag} without --groups" in answer.err


def test_policies_are_compared_by_group(tmp_path):
    names = ("--policies", "none,random", "--episodes", 2, "--groups", "village", "--out", tmp_path / "table")
    answer = run("evaluate", *SMALL, *names, "--json")
    assert answer.code == 0, answer.err
    assert [row["policy"] for row in json.loads(answer.out)["rows"]] == ["none", "random"]
    assert (tmp_path / "table" / "groups.csv").exists()
    answer = run("evaluate", *SMALL, *names, "--seeds", 2)
    assert answer.code == 2
    assert "--groups with --seeds 2" in answer.err
