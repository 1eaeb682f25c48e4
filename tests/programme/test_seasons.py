"""Random seasons: people join, leave and pause, sheets are sorted anew, the machine stops anywhere; nothing is lost.

The oracle is a plain list kept by the test. A crash is a real SIGKILL of a child process at a chosen system call.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model, decide
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.programme.ledger import Ledger
from rmab_opt.records.cohort import Cohort

CALLS = ("replace", "link", "fsync", "open")
"""System calls at one of which the child dies."""


def tables_of(name: str) -> np.ndarray:
    return np.random.default_rng([ord(letter) for letter in name]).dirichlet(np.ones(2), (2, 2))


class Season(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.members: dict[str, str] = {f"m{k}": "active" for k in range(4)}
        self.order = list(self.members)
        self.known, self.rounds, self.events = 4, [], 0
        Cohort(self.folder / "cohort").join(self.order, 0)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # ---- what the test knows
    def model(self) -> Model:
        here = [name for name in self.order if name in self.members]
        transition = np.stack([tables_of(name) for name in here])
        reward = np.zeros((len(here), 2, 2))
        reward[:, 1] = 1.0
        arms = Arms.read(Table({"id": here, "kind": [name[-1] for name in here]}, source="cohort.csv"))
        dynamics = Tabular(transition, reward, state_names=("away", "engaged"))
        return Model(Problem(arms, dynamics, horizon=99), ActionSet(arms, {"weekly": Budget(at_most=2)}))

    def event(self, what: str, name: str) -> None:
        Cohort(self.folder / "cohort").add(what, [name], len(self.rounds))

    @rule()
    def joins(self) -> None:
        name = f"m{self.known}"
        self.known += 1
        self.members[name] = "active"
        self.order.append(name)
        self.event("join", name)

    @precondition(lambda self: len(self.members) > 2)
    @rule(k=st.integers(0, 99))
    def leaves(self, k: int) -> None:
        name = sorted(self.members)[k % len(self.members)]
        del self.members[name]
        self.event("leave", name)

    @rule(k=st.integers(0, 99))
    def pauses_or_resumes(self, k: int) -> None:
        name = sorted(self.members)[k % len(self.members)]
        is_active = self.members[name] == "active"
        self.members[name] = "paused" if is_active else "active"
        self.event("pause" if is_active else "resume", name)

    @rule(number=st.integers(0, 99))
    def sheet_is_sorted_anew(self, number: int) -> None:
        np.random.default_rng(number).shuffle(self.order)

    def week(self, number: int) -> tuple[Model, dict, Table]:
        rng, model = np.random.default_rng([number, len(self.rounds)]), self.model()
        standing = Ledger(self.folder / "ledger", model).standing()
        state = rng.integers(0, 2, model.problem.n_arms) if standing is None else standing.state
        made = json.loads(decide(model, state, period=len(self.rounds)).to_json())
        seen = [str(rng.choice(["", "away", "engaged"])) for _ in model.problem.arms.ids]
        done = ["no" if rng.random() < 0.3 else "" for _ in model.problem.arms.ids]
        return model, made, Table({"id": list(model.problem.arms.ids), "done": done, "state": seen}, source="o.csv")

    def take(self, made: dict, outcomes: Table) -> None:
        told = dict(zip(outcomes.text("id"), outcomes.text("done"), strict=True))
        states = {"away": 0, "engaged": 1}
        seen = zip(outcomes.text("id"), outcomes.text("state"), strict=True)
        self.rounds.append(
            {
                "ids": made["ids"],
                "state": made["state"],
                "decided": made["action"],
                "done": [name for name in made["ids"] if name in made["action"] and told[name] != "no"],
                "observed": {name: states[word] for name, word in seen if word},
            }
        )

    @rule(number=st.integers(0, 9999), twice=st.booleans())
    def week_is_recorded(self, number: int, twice: bool) -> None:
        model, made, outcomes = self.week(number)
        Ledger(self.folder / "ledger", model).record(made, outcomes)
        self.take(made, outcomes)
        if twice:
            Ledger(self.folder / "ledger", model).record(made, outcomes)

    @rule(number=st.integers(0, 9999), call=st.sampled_from(CALLS), at=st.integers(0, 6))
    def machine_stops_in_the_middle(self, number: int, call: str, at: int) -> None:
        model, made, outcomes = self.week(number)
        child = os.fork()
        if child == 0:
            real, seen = getattr(os, call), []

            def stop(*given, **named):
                seen.append(1)
                if len(seen) > at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)

            setattr(os, call, stop)
            try:
                Ledger(self.folder / "ledger", model).record(made, outcomes)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        kept = len(Ledger(self.folder / "ledger", model).rounds)
        assert kept in (len(self.rounds), len(self.rounds) + 1)
        # The same command again: recorded once, whatever the crash left.
        Ledger(self.folder / "ledger", model).record(made, outcomes)
        self.take(made, outcomes)

    # ---- what must hold
    @invariant()
    def nothing_is_lost(self) -> None:
        found = Ledger(self.folder / "ledger", self.model()).rounds
        assert [
            {key: one[key] for key in ("ids", "state", "decided", "done", "observed")} for one in found
        ] == self.rounds
        cohort = Cohort(self.folder / "cohort").members()
        assert set(cohort.active) == {name for name, word in self.members.items() if word == "active"}
        assert set(cohort.paused) == {name for name, word in self.members.items() if word == "paused"}

    @invariant()
    def standing_is_keyed_by_id(self) -> None:
        """Beliefs by the test's own arithmetic, whatever the order of the sheet."""
        if not self.rounds:
            return
        model = self.model()
        standing = Ledger(self.folder / "ledger", model).standing()
        start = dict(zip(model.problem.arms.ids, model.problem.start_distribution, strict=True))
        for name in model.problem.arms.ids:
            belief, met = np.array(start[name]), False
            for one in self.rounds:
                if name in one["ids"]:
                    decided = one["state"][one["ids"].index(name)]
                    if not (met and belief.argmax() == decided):
                        belief = np.eye(2)[decided]
                    met = True
                if met:
                    belief = belief @ tables_of(name)[int(name in one["done"])]
                if name in one["observed"]:
                    belief = np.eye(2)[one["observed"][name]]
            assert standing.belief[list(standing.ids).index(name)] == pytest.approx(belief, abs=1e-12)


def seasons(count: int, steps: int, part: int | None = None) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(max_examples=count, stateful_step_count=steps, deadline=None, suppress_health_check=slow)
    # Parts have their own seeds, so that together they are as many different seasons as one run of them all.
    machine = Season if part is None else seed(part)(type(f"Season{part}", (Season,), {}))
    run_state_machine_as_test(machine, settings=chosen)


def test_a_few_random_seasons_lose_nothing():
    seasons(4, 8)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_hundred_random_seasons_lose_nothing(part):
    seasons(50, 14, part)
