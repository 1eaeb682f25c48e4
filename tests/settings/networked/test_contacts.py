"""Contacts as people have them: repeated, both ways, weighed, without a header, from networkx; ids, not rows."""

from __future__ import annotations

import json

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.decisions import decide
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.settings.networked.cascade import Graph
from rmab_opt.settings.networked.contacts import contact_table, read_contacts
from tests.command_line import run

ARMS = Arms.from_arrays(["10", "20", "30", "07"])
SIDES = {"u": ["10", "20", "30"], "v": ["20", "10", "07"]}


def table(**columns):
    return Table(columns, source="contacts.csv", first_row=2)


def said(given):
    return " | ".join(str(remark) for remark in given.log.remarks)


def pairs(graph):
    return {(int(a), int(b)): float(p) for a, b, p in zip(graph.tail, graph.head, graph.probability, strict=True)}


def test_both_directions_of_a_contact_are_one_where_they_agree():
    rows = table(**SIDES, p=["0.5", "0.5", "1"])
    assert pairs(read_contacts(ARMS, rows, probability="p")) == {(0, 1): 0.5, (2, 3): 1.0}
    assert "1 contacts stand in the other direction (first 20 and 10): counted once" in said(rows)
    apart = read_contacts(ARMS, table(**SIDES, p=["0.5", "0.5", "1"]), probability="p", directed=True)
    assert pairs(apart) == {(0, 1): 0.5, (1, 0): 0.5, (2, 3): 1.0}


def test_rows_that_differ_are_refused_until_the_model_says_what_holds():
    with pytest.raises(ModelError, match=r"'10' and '20' stands in rows 2, 3 with probabilities 0\.5, 0\.2"):
        read_contacts(ARMS, table(**SIDES, p=["0.5", "0.2", "1"]), probability="p")
    for how, value in (("largest", 0.5), ("mean", 0.35), ("any", 1 - 0.5 * 0.8)):
        graph = read_contacts(ARMS, table(**SIDES, p=["0.5", "0.2", "1"]), probability="p", doubles=how)
        assert pairs(graph) == {(0, 1): pytest.approx(value), (2, 3): 1.0}
    with pytest.raises(ModelError, match="largest"):
        read_contacts(ARMS, table(**SIDES, p=["0.5", "0.2", "1"]), probability="p", doubles="larges")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0, 1)), max_size=14), st.booleans())
def test_any_is_the_chance_that_one_of_the_rows_passes_on(rows, directed):
    arms = Arms.from_arrays(5)
    given_ = {name: [row[k] for row in rows] for k, name in enumerate(("u", "v", "p"))}
    given_["u"], given_["v"] = ([f"arm{k}" for k in given_[name]] for name in ("u", "v"))
    graph = read_contacts(arms, Table(given_), probability="p", directed=directed, doubles="any")
    stays = {}
    for u, v, p in rows:
        if u != v:
            key = (u, v) if directed else (min(u, v), max(u, v))
            stays[key] = stays.get(key, 1.0) * (1.0 - p)
    found = {key if directed else (min(key), max(key)): p for key, p in pairs(graph).items()}
    assert found == {key: pytest.approx(1.0 - left, abs=1e-12) for key, left in stays.items()}


def test_weights_count_meetings_and_the_rule_is_said():
    rows = table(**SIDES, times=["2", "1", "0"])
    graph = read_contacts(ARMS, rows, probability=0.1, weight="times", doubles="any")
    assert pairs(graph) == {(0, 1): pytest.approx(1 - 0.9**3), (2, 3): 0.0}
    assert "probability 1 - (1 - 0.1)^w" in said(rows)
    with pytest.raises(ModelError, match=r"(?s)times is 2, no probability.*weight: times"):
        read_contacts(ARMS, table(**SIDES, times=["2", "1", "0"]), probability="times")


@pytest.mark.parametrize(
    "text",
    [
        "# Undirected graph: ../../data/output/people.txt\n# FromNodeId\tToNodeId\n10\t20\n20\t10\n\n07 30\n30\t30\n",
        "% sym unweighted\n10 20\n  07   30\n",
        "10,20\n07,30\n",
        "u v\n10 20\n07 30\n",
        "u,v\n10,20\n07,30\n",
    ],
)
def test_edge_lists_of_the_web_need_no_header(tmp_path, text):
    (tmp_path / "edges.txt").write_text(text)
    graph = read_contacts(ARMS, tmp_path / "edges.txt", probability=0.3)
    assert pairs(graph) == {(0, 1): 0.3, (3, 2): 0.3}
    read = contact_table(ARMS, tmp_path / "edges.txt", ("u", "v"))
    assert ("no header: the columns are taken as u, v" in said(read)) == ("u" not in text.split("\n")[0][:1])


def test_rows_of_edge_lists_keep_their_lines_and_unknown_ids_name_the_nearest(tmp_path):
    (tmp_path / "edges.txt").write_text("# people\n10 20 0.5\n21 07 0.25\n")
    with pytest.raises(ModelError, match=r"edges.txt:3: no arm '21' in the cohort; to fix, known: 10, 20"):
        read_contacts(ARMS, tmp_path / "edges.txt", probability="p")
    kept = read_contacts(ARMS, tmp_path / "edges.txt", probability="p", others="ignore")
    assert pairs(kept) == {(0, 1): 0.5}
    (tmp_path / "edges.txt").write_text("10 20 0.5\n20 07\n")
    with pytest.raises(ModelError, match=r"edges.txt:2: 2 cells, u, v, p are expected"):
        read_contacts(ARMS, tmp_path / "edges.txt", probability="p")


def test_networkx_graphs_go_by_the_ids_of_the_cohort_or_by_their_own():
    net = networkx.MultiGraph()
    net.add_edge(20, 10, w=0.25)
    net.add_edge(20, 10, w=0.25)
    net.add_edge(30, 30, w=0.5)
    assert pairs(read_contacts(ARMS, net, probability="w")) == {(1, 0): 0.25}
    assert pairs(Graph.from_networkx(net, "w")) == {(0, 1): 0.25}
    directed = networkx.DiGraph([("a", "b"), ("b", "a")])
    assert pairs(Graph.from_networkx(directed, 0.1)) == {(0, 1): 0.1, (1, 0): 0.1}
    with pytest.raises(ModelError, match="no arm '40'"):
        read_contacts(ARMS, networkx.Graph([(10, 40)]))
    with pytest.raises(ModelError, match="edge of a and b has no attribute 'p'"):
        Graph.from_networkx(directed, "p")


MODEL = """format: 1
title: Mine
problem:
  arms: arms.csv
  dynamics: {kind: cascade, contacts: edges.txt, probability: 0.4, value: worth}
  horizon: 4
constraints:
  visits: {kind: budget, at_most: 2}
  LOCK
objective: {kind: cascade, samples: 50}
"""


@pytest.fixture
def mine(tmp_path):
    # Acting on 20 harms it: less likely active when acted on.
    (tmp_path / "arms.csv").write_text(
        "id,p00,p01,p10,p11,worth,village\n10,0.1,0.6,0.7,0.9,2,x\n20,0.3,0.1,0.7,0.4,1,x\n07,0.1,0.6,0.7,0.9,1,y\n"
    )
    (tmp_path / "edges.txt").write_text("10 20\n20 07\n")
    (tmp_path / "model.yaml").write_text(MODEL.replace("LOCK", "closed: {kind: locked_out, ids: ['20']}"))
    (tmp_path / "open.yaml").write_text(MODEL.replace("  LOCK\n", ""))
    return tmp_path


@pytest.mark.parametrize("method", ["greedy", "program", "auto"])
def test_locking_out_an_arm_that_acting_harms_works_as_advised(mine, method):
    with pytest.raises(ModelError, match="acting on arm '20' lowers its chance") as caught:
        decide(ro.load(mine / "open.yaml"), method=method)
    assert "locked_out" in caught.value.fix
    made = decide(ro.load(mine / "model.yaml"), method=method)
    assert list(made.chosen) == ["10", "07"]
    table = ro.evaluate(ro.load(mine / "model.yaml"), ["none", "myopic_cascade"], episodes=3)
    assert len(table.rows) == 2


def test_groups_of_a_network_are_told_what_the_round_brings(mine):
    result = run("decide", str(mine / "model.yaml"), "--groups", "village", "--json")
    assert result.code == 0, result.err
    rows = {row["village"]: row for row in json.loads(result.out)["fairness"]["groups"]}
    model = ro.load(mine / "model.yaml")
    exact = model.problem.dynamics.expected_reward(np.zeros(3, dtype=int), np.array([1, 0, 1]))
    assert rows["x"]["planned"] == pytest.approx(exact[:2].sum())
    assert (rows["x"]["chosen"], rows["y"]["arms"]) == (1, 1)
    table = run("evaluate", str(mine / "model.yaml"), "--groups", "village", "--episodes", "2", "--policies", "none")
    assert table.code == 0, table.err
    assert "group:x" in table.out
    refused = run("bound", str(mine / "model.yaml"), "--groups", "village")
    assert refused.code == 2
    assert "evaluate MODEL --groups village" in refused.err
