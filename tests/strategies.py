"""Small random cohorts, constraints and models, shared by the property tests."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Knapsack, Linear, LockedIn, LockedOut, Scheduling
from rmab_opt.problem import Arms, Problem, Table, Tabular

SLOTS = ("mon-am", "mon-pm", "9:30")
KINDS = ("budget", "linear", "knapsack", "locked_in", "locked_out", "conflict", "capacity", "scheduling")


def all_actions(n_columns: int) -> np.ndarray:
    """Every 0/1 vector, (2**C, C)."""
    return np.array(list(itertools.product((0, 1), repeat=n_columns)), dtype=np.int64)


@st.composite
def cohorts(draw, least: int = 2, most: int = 6) -> Arms:
    n = draw(st.integers(least, most))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    return Arms.from_arrays(
        n,
        cost=rng.integers(0, 5, n),
        load=rng.integers(1, 5, n),
        weight=np.round(rng.normal(size=n), 2),
        village=rng.choice(["north", "south"], n),
        slots=[";".join(rng.choice(SLOTS, rng.integers(0, 3), replace=False)) or SLOTS[0] for _ in range(n)],
    )


def constraint(kind: str, arms: Arms, rng: np.random.Generator):
    """A random constraint of a kind over the cohort."""
    n = len(arms)

    def some(least: int = 1) -> list[str]:
        return [str(name) for name in rng.choice(arms.ids, rng.integers(least, n + 1), replace=False)]

    sides = [
        {"at_most": int(rng.integers(0, n + 1))},
        {"at_least": int(rng.integers(0, n))},
        {"equal": int(rng.integers(0, n))},
    ]
    side = sides[rng.choice(3, p=[0.6, 0.25, 0.15])]
    if kind == "budget":
        return Budget(**side)
    if kind == "linear":
        column = [None, "cost", "weight"][rng.integers(3)]
        village = str(rng.choice(arms.text("village")))
        where = {} if rng.random() < 0.5 else {"village": village}
        # Sums of a real-valued column meet an equality by accident only.
        side = {"at_most": float(rng.integers(-1, 5))} if column == "weight" else side
        return Linear(column=column, where=where, per="village" if rng.random() < 0.4 else None, **side)
    if kind == "knapsack":
        return Knapsack(cost="cost", at_most=float(rng.integers(0, 12)))
    if kind == "locked_in":
        return LockedIn(ids=some()[:2])
    if kind == "locked_out":
        return LockedOut(ids=some()[:2])
    if kind == "conflict":
        return Conflict(groups=[some(2)], at_most=int(rng.integers(0, 3)))
    if kind == "capacity":
        workers = int(rng.integers(1, 4))
        table = Table({"worker": [f"w{i}" for i in range(workers)], "capacity": rng.integers(1, 8, workers).tolist()})
        return Capacity(workers=table, cost="load" if rng.random() < 0.7 else None)
    workers = int(rng.integers(1, 4))
    duty = [
        (f"w{i}", slot, int(rng.integers(1, 3)), str(rng.choice(["", *arms.text("village")])))
        for i in range(workers)
        for slot in rng.choice(SLOTS, rng.integers(1, 4), replace=False)
    ]
    # At least one shift meets a slot of some arm; the kind refuses rosters that meet none.
    duty.append(("w9", arms.text("slots")[0].split(";")[0], 1, arms.text("village")[0]))
    rule = ["any", "distinct_workers", "same_slot"][rng.integers(3)]
    match = rng.random() < 0.5
    if match and rule == "same_slot":
        duty = [(w, s, c, g or arms.text("village")[0]) for w, s, c, g in duty]
    roster = Table({key: [row[k] for row in duty] for k, key in enumerate(("worker", "slot", "calls", "village"))})
    return Scheduling(roster=roster, visits=int(rng.integers(1, 3)), rule=rule, match="village" if match else None)


@st.composite
def action_sets(draw, kinds: tuple[str, ...] | None = None, most: int = 6) -> ActionSet:
    """A cohort with one constraint of each given kind, or one to three of any kind."""
    arms = draw(cohorts(most=most))
    chosen = kinds or tuple(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True)))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    return ActionSet(Columns.of_arms(arms), {f"{kind}_rule": constraint(kind, arms, rng) for kind in chosen})


def tabular(n_arms: int, n_states: int, n_actions: int, rng: np.random.Generator) -> Tabular:
    """Random arms."""
    return Tabular(
        rng.dirichlet(np.ones(n_states), (n_arms, n_actions, n_states)), rng.normal(size=(n_arms, n_states, n_actions))
    )


def problem_for(arms: Arms, rng: np.random.Generator, n_states: int = 3) -> Problem:
    """A problem with random dynamics over the cohort."""
    return Problem(arms, tabular(len(arms), n_states, 2, rng), horizon=4, start=rng.integers(n_states, size=len(arms)))
