"""Inspection plans: the speed of indices, plans and bounds; the published tables are ``rmab-opt reproduce``'s.

python benchmarks/inspection.py --quick     # a minute
python benchmarks/inspection.py --full      # with 7,000 arms, weeks and five periods
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.instances import generate
from rmab_opt.problem import Arms, Problem
from rmab_opt.report import table_text
from rmab_opt.settings.inspection import Frequency, SlotBudget, VisitColumns
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.indices import encoded_indices
from rmab_opt.settings.inspection.instances import draw
from rmab_opt.settings.inspection.periods import plan_periods
from rmab_opt.settings.inspection.plan import all_rows
from rmab_opt.solver import Program, Session

REFERENCE_RATE = 1 / 0.852
"""Arms a user CPU second of the released code, 100 Beta arms (the specification's measurement)."""


def bisected_indices(
    arms: EncodedArms, arm: int, discount: float, states: np.ndarray, halvings: int = 44
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Indices of some states by bisection over policy iteration on all states of one arm, and where they are."""
    one = EncodedArms(arms.chains.of(np.array([arm])), arms.windows.of(np.array([arm])))
    every = np.arange(one.n_states)[:, None]
    following = np.stack([one.move(every, np.full_like(every, action))[:, 0] for action in (0, 1)])
    paid = one.belief(every)[:, 0][following]
    row = np.arange(one.n_states)

    def advantage(charge: float) -> np.ndarray:
        policy = np.zeros(one.n_states, dtype=int)
        while True:
            value, target, weight = paid[policy, row] - charge * policy, following[policy, row], discount
            for _ in range(13):
                value, target, weight = value + weight * value[target], target[target], weight * weight
            worth = paid + discount * value[following]
            worth[1] -= charge
            better = np.where(worth[1 - policy, row] > worth[policy, row] + 1e-11, 1 - policy, policy)
            if (better == policy).all():
                return worth[1] - worth[0]
            policy = better

    found, places = [], []
    for state in np.asarray(states).tolist():
        age, slot, used = (int(part) for part in np.unravel_index(state % one.n_states, one._shape))
        place = int(one.encode(np.array([age]), slot, used)[0])
        low, high = -4.0, 40.0
        for _ in range(halvings):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if advantage(middle)[place] > 0 else (low, middle)
        found.append(0.5 * (low + high))
        places.append((min(age, one.n_beliefs - 1), slot, used))
    return np.array(found), places


def indices(n_arms: int, checked: int) -> None:
    """Index tables of Beta arms: CPU seconds, rate against the reference, agreement with the slow method."""
    print(f"\nIndex tables, {n_arms} encoded arms of the Beta generator, T = 12, W = 2, user CPU seconds")
    good, back, start = draw("beta", n_arms, 12, 2, seed=0)
    windows = Windows.spans(start, 2, 12)
    rows = []
    for rule in ("step", "limit"):
        chains = BeliefChains.build(good, back, rule=rule)
        seconds = []
        for verdict in (False, True):
            begun = time.process_time()
            found = encoded_indices(chains, windows, 0.99, verdict=verdict)
            seconds.append(time.process_time() - begun)
        arms = EncodedArms(chains, windows)
        rng, worst, slow = np.random.default_rng(1), 0.0, 0.0
        for arm in rng.choice(n_arms, checked, replace=False).tolist():
            slot = int(start[arm]) + int(rng.integers(2))
            state = (int(rng.integers(chains.length[arm])) * 12 + slot) * 2
            begun = time.process_time()
            value, ((age, _, _),) = bisected_indices(arms, arm, 0.99, np.array([state]))
            slow += time.process_time() - begun
            worst = max(worst, abs(value[0] - found.values[arm, age, slot, 0]))
        rows.append(
            {
                "chains": rule,
                "mean length": float(chains.length.mean()),
                "indices": seconds[0],
                "with verdict": seconds[1],
                "arms/s": n_arms / seconds[1],
                "x reference": n_arms / seconds[1] / REFERENCE_RATE,
                "indexable": f"{int(found.indexable.sum())} of {n_arms}",
                f"difference ({checked} arms)": f"{worst:.0e}",
            }
        )
    print(table_text(rows))


def cohort(n_arms: int, seed: int, horizon: int, generator: str = "narrow") -> Problem:
    """The published setting: chains cut by the published rule."""
    made = generate("inspection", n_arms=n_arms, generator=generator, rule="step", horizon=horizon, seed=seed)
    return made.problem


def plan_speed(n_arms: int, n_slots: int, length: int, budget: int, rounds: int = 3) -> None:
    """From the problem to the checked calendar, against the bare linear program in one interleaved run."""
    good, back, start = draw("narrow", n_arms, n_slots, length, seed=0)
    if n_slots == 52:
        good, back = 1 - (1 - good) * 12 / 52, back * 12 / 52
    whole, bare = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        windows = Windows.spans(start, length, n_slots)
        arms = Arms.from_arrays(n_arms)
        problem = Problem(arms, EncodedArms(BeliefChains.build(good, back), windows), horizon=n_slots)
        columns = VisitColumns(arms, n_slots, windows.open)
        actions = ActionSet(columns, {"yearly": Frequency(equal=1), "slots": SlotBudget(at_most=budget)})
        plan = calendar(Model(problem, actions, VisitGains()))
        whole.append(time.perf_counter() - begun)
        rows, gains = all_rows(actions), plan.gains[columns.arm, columns.slot]
        n = len(gains)
        program = Program(
            gains, rows.matrix, rows.lower, rows.upper, np.zeros(n), np.ones(n), np.zeros(n, dtype=bool), maximise=True
        )
        session = Session.from_arrays(program)
        begun = time.perf_counter()
        session.solve()
        bare.append(time.perf_counter() - begun)
    allowed = 1.5 * min(bare) + 0.5
    print(
        f"{n_arms} arms x {n_slots} slots, W = {length}, {n} columns: problem to checked calendar {min(whole):.3f} s, "
        f"bare linear program {min(bare):.3f} s, allowed 1.5 x + 0.5 = {allowed:.3f} s; {plan.path}, gap {plan.gap:.1e}"
    )


def periods(n_arms: int, budget: int) -> None:
    """Five periods: certified bound and the plan that meets it."""
    problem = cohort(n_arms, 0, 60)
    arms = problem.dynamics
    assert isinstance(arms, EncodedArms)
    for every in (False, True):
        found = plan_periods(arms.chains, arms.windows, 60, budget, every_window=every)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n_arms} arms x 60 slots, {'every window' if every else 'at most once'}: {found.variables} variables, "
            f"value {found.value:.2f}, bound {found.bound:.2f}, {found.fractional} arms split, {found.seconds:.1f} s, "
            f"{memory:.2f} GiB"
        )


def main() -> None:
    """Run the chosen size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 arms, one seed")
    parser.add_argument("--full", action="store_true", help="also 7,000 arms, weeks and five periods")
    chosen = parser.parse_args()
    print(__doc__)
    indices(5000, 40 if chosen.quick else 200)
    print("\nPlans, seconds of one interleaved run")
    plan_speed(5000, 12, 2, 430)
    if not chosen.quick:
        plan_speed(7000, 52, 4, 150)
    print("\nSeveral periods, certified")
    periods(7000 if chosen.full else 500, 630 if chosen.full else 45)


if __name__ == "__main__":
    main()
