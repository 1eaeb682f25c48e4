"""A city's year by days: 7,000 establishments, 250 days, 3 classes, 12 districts, 30 inspectors, 60 days apart.

    python benchmarks/calendar_year.py --quick     # 500 establishments, 50 days
    python benchmarks/calendar_year.py             # the size that is promised: 60 CPU s, 3 GiB, gap 0.5 %; re-plan 5 s

The gap is a share of what the visits earn over none, not of the total that no visit changes. User CPU seconds of one
process with one thread; the memory is the process's largest, with the model. Decay as fitted to Chicago's records
(risk: beta with the records' mean and spread; persistence 0.674 a month), so that gains are as flat as they are.
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
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.report import table_text
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows, earned
from rmab_opt.settings.inspection.calendar import Calendar, calendar
from rmab_opt.settings.inspection.events import CalendarEvent
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.kinds import ClassRules, Gap, Inspectors, SlotBudget, VisitColumns


def city(n_arms: int, n_slots: int, seed: int = 0) -> Model:
    """Risk 1 twice a year, risk 2 once, risk 3 every other year; inspectors with one or two visits a day."""
    rng = np.random.default_rng(seed)
    risk = rng.beta(1.45, 8.69, n_arms)
    kept = 0.6741 ** (12 / n_slots)
    bounds = np.quantile(risk, [1 / 3, 2 / 3])
    arms = Arms.from_arrays(
        n_arms,
        risk=3 - np.searchsorted(bounds, risk),
        district=[f"d{i % 12 + 1:02d}" for i in range(n_arms)],
        since=rng.integers(0, 2, n_arms),
    )
    dynamics = EncodedArms(
        BeliefChains.build(1 - (1 - kept) * risk, (1 - kept) * (1 - risk)), Windows.free(n_arms, n_slots, 2)
    )
    # As many inspectors as make the year four fifths full, of one and two visits a day by turns; 30 in the full size.
    seats = int(np.ceil(1.3 * n_arms * 1.25 / n_slots))
    capacity = [2 if k % 2 == 0 else 1 for k in range(max(2, round(seats / 1.5)))]
    staff = Table(
        {
            "id": [f"i{k:02d}" for k in range(len(capacity))],
            "capacity": capacity,
            "district": [f"d{k % 12 + 1:02d}" for k in range(len(capacity))],
        }
    )
    rules = Table({"class": ["1", "2", "3"], "visits": ["2", "1", "1"], "every": ["1", "1", "2"]})
    actions = ActionSet(
        VisitColumns(arms, n_slots),
        {
            "often": ClassRules(column="risk", rules=rules, last="since"),
            "apart": Gap(slots=max(2, 60 * n_slots // 250)),
            "staff": Inspectors(staff=staff),
            "areas": SlotBudget(per="district", at_most=max(1, round(seats / 6))),
        },
    )
    return Model(Problem(arms, dynamics, horizon=n_slots), actions, VisitGains(several=True), title="a city's year")


def measured(name: str, plan: Calendar, seconds: float) -> dict[str, object]:
    """One row of the table."""
    arms = plan.model.problem.dynamics
    assert isinstance(arms, EncodedArms)
    none = earned(arms, np.zeros(arms.n_arms, dtype=np.int64), np.zeros((arms.n_arms, arms.n_slots), dtype=bool))
    return {
        "what": name,
        "CPU s": round(seconds, 1),
        "GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "visits": int(plan.visits.sum()),
        "moved": plan.moved,
        "late": len(plan.overdue),
        "gap % of gain": round(100 * plan.gap / (plan.bound - none), 3),
        "path": plan.path,
    }


def main() -> None:
    """Plan, then one event and a re-plan of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 establishments, 50 days")
    parser.add_argument("--arms", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    n_arms, n_slots = (500, 50) if chosen.quick else (7000, 250)
    n_arms = chosen.arms or n_arms
    rows = []
    begun = time.process_time()
    model = city(n_arms, n_slots, chosen.seed)
    plan = calendar(model)
    rows.append(measured("plan, with the model", plan, time.process_time() - begun))
    now = n_slots // 5
    name, slot = next((plan.ids[i], now - 1) for i in np.flatnonzero(plan.visits[:, now - 1]))
    # Of somebody without a visit so far: one just visited may not be visited again yet.
    who = int(np.flatnonzero(~plan.visits[:, :now].any(axis=1) & plan.visits[:, now + 4 :].any(axis=1))[0])
    events = {
        "a missed visit": CalendarEvent(event="missed", arm=name, slot=slot),
        "a complaint": CalendarEvent(event="complaint", arm=plan.ids[who], slot=now, last=now + 3),
        "an inspector on leave": CalendarEvent(event="leave", arm="i01", slot=now, last=now + 9),
        "a closed establishment": CalendarEvent(event="closed", arm=plan.ids[7], slot=now),
    }
    for words, event in events.items():
        begun = time.process_time()
        plan = plan.replan(now, events=[event])
        rows.append(measured(f"re-plan: {words}", plan, time.process_time() - begun))
    # A complaint that nobody looked at in time: what is late must still be planned, and be marked.
    at = int(np.flatnonzero(plan.visits[who, now : now + 4])[0]) + now
    begun = time.process_time()
    plan = plan.replan(now + 5, events=[CalendarEvent(event="missed", arm=plan.ids[who], slot=at)])
    rows.append(measured("re-plan: a complaint missed past its deadline", plan, time.process_time() - begun))
    print(f"seed {chosen.seed}: {n_arms} establishments, {n_slots} days, {len(model.actions.columns)} cells")
    print(table_text(rows))


if __name__ == "__main__":
    main()
