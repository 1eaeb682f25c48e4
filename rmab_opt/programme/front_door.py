"""Which rule plans a decision, and what the plan is worth to the horizon; the certificate stays the round's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rmab_opt import registry
from rmab_opt.decisions import Chooser, Decision, Immediate, Model, Objective
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.policy import Policy, make_policy
from rmab_opt.decisions.question import Question
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.planning.scores import priced_action_values
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["IMMEDIATE", "PLANNED_BY", "Outlook", "Plan", "choose_rule", "outlook", "plan_decision", "saved_objective"]

PLANNED_BY = "lagrangian"
"""The rule that plans by default. At 1,200 arms it earned 99.2 % of what acting can add where the best choice of each
round alone earned 67 %; ``lp_update`` earned nothing beyond it at a multiple of the time."""

IMMEDIATE = "immediate"
"""What `--policy` calls the round's own reward; the policy is ``myopic``."""

EPISODES = 4
"""Runs of the plan behind its expected total; the decomposition's values take most of the chance out of each."""


@dataclass(frozen=True)
class Plan:
    """Who decides, and why.

    Parameters
    ----------
    policy
        A registered policy; empty where the model's own objective decides.
    reason
        For the person who reads the decision.
    """

    policy: str
    reason: str

    def __str__(self) -> str:
        return f"{self.policy or 'the declared objective'}: {self.reason}"


@dataclass(frozen=True)
class Outlook:
    """What a plan is expected to earn from here to the horizon, under the model's own tables.

    ``idle`` is the total without any action, exact; ``bound`` what no policy can exceed; both in reward units.
    """

    rounds: int
    total: float
    low: float
    high: float
    episodes: int
    idle: float
    bound: float

    @property
    def share_of_gain(self) -> float | None:
        """Of what acting can add at most; None where it can add nothing."""
        room = self.bound - self.idle
        return (self.total - self.idle) / room if room > 1e-9 * max(1.0, abs(self.bound)) else None

    def lines(self) -> dict[str, str]:
        """For the printed decision, each claim on its own line."""
        rounds = f"{self.rounds} round{'s' if self.rounds > 1 else ''}"
        found = {
            "expected": f"{self.total:.6g} in {rounds} under this rule ({self.low:.6g} to {self.high:.6g}, "
            f"{self.episodes} runs of the model's own tables); {self.idle:.6g} without any action"
        }
        share = self.share_of_gain
        if share is not None:
            found["attainable"] = f"{100 * share:.1f} % of what acting can add at most"
        found["of the bound"] = f"{100 * self.total / self.bound:.1f} % of {self.bound:.6g}" if self.bound > 0 else "-"
        return found

    def summary(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "rounds": self.rounds,
            "expected": self.total,
            "low": self.low,
            "high": self.high,
            "episodes": self.episodes,
            "without": self.idle,
            "bound": self.bound,
            "share_of_gain": self.share_of_gain,
            "share_of_bound": self.total / self.bound if self.bound > 0 else None,
        }


def choose_rule(model: Model, period: int, asked: str | None = None) -> Plan:
    """The rule that decides a round of a model.

    A policy that is asked for comes first, then an objective that the model declares. Otherwise the rule plans
    wherever it can: tables are known and more than this round is left.
    """
    if asked is not None:
        name = "myopic" if asked == IMMEDIATE else asked
        registry.parse("policy", name)
        return Plan(name, "asked for")
    if not isinstance(model.objective, Immediate):
        return Plan("", "declared by the model")
    left = model.problem.horizon - period
    if left <= 1:
        return Plan("myopic", "this is the last round")
    if getattr(model.problem.dynamics, "tabular", None) is None:
        return Plan("myopic", "these arms have no tables to plan by, only this round's reward is counted")
    return Plan(PLANNED_BY, f"{left} rounds to go")


def _from_here(model: Model, state: np.ndarray, period: int) -> Model:
    """The model as seen from this round: its start is the state, its horizon the rounds left."""
    left = model.problem.horizon - period
    return replace(model, problem=replace(model.problem, start=state, horizon=left), objective=Immediate())


def _policy(model: Model, plan: Plan, state: np.ndarray, period: int) -> Policy:
    # The default rule has one table for all rounds, made for the rounds that are left; other policies know the round.
    here = _from_here(model, state, period) if plan.policy == PLANNED_BY else model
    try:
        return make_policy(plan.policy, here)
    except CapabilityError:
        if plan.reason == "asked for":
            raise
        return make_policy("myopic", model)


def plan_decision(
    model: Model,
    plan: Plan,
    state: np.ndarray | None,
    period: int = 0,
    *,
    shared: np.ndarray | None = None,
    solver: Any = None,
    relax: str | None = None,
    title: str = "",
) -> Decision:
    """The certified decision of a round by a plan; errors as :meth:`rmab_opt.decisions.Chooser.decide`."""
    objective: Objective = Immediate() if plan.policy else model.objective
    profile = model.solver if solver is None else solver
    chooser = Chooser(model.problem, model.actions, objective, profile, relax=relax, title=title, many=False)
    question = chooser.question(state, period, shared=shared)
    if not plan.policy:
        return chooser.answer(question)
    policy = _policy(model, plan, question.state, period)
    offered, _ = policy.propose(question, policy.begin(np.random.default_rng(0)))
    return chooser.settle(question, offered, policy.name)


def saved_objective(model: Model, saved: Path) -> Objective:
    """The objective behind a saved decision that names its policy, worked out anew from the model and the state.

    Raises
    ------
    ModelError
        When the policy is unknown.
    """
    try:
        document = json.loads(saved.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # What is wrong with the file is said by the one who verifies it.
        return model.objective
    name = document.get("policy") if isinstance(document, Mapping) and "state" in document else None
    if not name:
        return model.objective
    plan = Plan(str(name), "saved")
    state = model.problem.check_state(np.asarray(document["state"]))
    period = int(document.get("period", 0))
    chooser = Chooser(model.problem, model.actions, Immediate(), model.solver, many=False)
    shared = model.problem.shared_array(document.get("shared", {}), "the decision's shared")
    question = chooser.question(state, period, shared=shared)
    policy = _policy(model, plan, question.state, period)
    offered, _ = policy.propose(question, policy.begin(np.random.default_rng(0)))
    return offered.objective if isinstance(offered, Question) else question.objective


def outlook(
    model: Model, plan: Plan, state: np.ndarray, period: int = 0, *, episodes: int = EPISODES, seed: int = 0
) -> Outlook | None:
    """What the plan earns from a state to the horizon; None where no bound can be had or only this round is left.

    Expected rewards are added along simulated runs of the plan. What the decomposition's values say about chance is
    subtracted (a control variate with mean zero), so that a few runs suffice.
    """
    left = model.problem.horizon - period
    open_rows = getattr(model.actions, "open_constraints", ())
    if left <= 1 or episodes < 1 or model.problem.shared_names or (open_rows and period):
        return None
    here = _from_here(model, state, period)
    try:
        transition, reward = require_tabular(here.problem.dynamics, "an outlook")
        limit = upper_bound(here)
        policy = (
            make_policy(plan.policy, here)
            if plan.policy
            else make_policy("model", replace(here, objective=model.objective))
        )
    except (CapabilityError, InfeasibleError, SolverError, ModelError):
        return None
    discount = here.problem.discount
    _, values = priced_action_values(transition, reward, limit.arm_prices, discount=discount, horizon=left)
    arms = np.arange(here.problem.n_arms)
    totals = []
    for child in np.random.SeedSequence(seed).spawn(episodes):
        rng = np.random.default_rng(child)
        memory, now, total = policy.begin(rng), state, 0.0
        for t in range(left):
            made, memory = policy.follow(now, t, memory)
            taken = here.actions.columns.arm_action(made.action)
            ahead = np.einsum("ns,ns->", transition[arms, taken, now], values[t + 1])
            weight = discount**t
            total += weight * float(here.problem.expected_reward(now, taken).sum())
            now = here.problem.step(now, taken, None, rng)[0]
            total += weight * discount * float(ahead - values[t + 1][arms, now].sum())
        totals.append(total)
    mean = float(np.mean(totals))
    half = 0.0
    if episodes > 1:
        half = float(stats.t.ppf(0.975, episodes - 1) * np.std(totals, ddof=1) / np.sqrt(episodes))
    return Outlook(
        left, mean, mean - half, mean + half, episodes, _idle(transition, reward, state, left, discount), limit.value
    )


def _idle(transition: np.ndarray, reward: np.ndarray, state: np.ndarray, rounds: int, discount: float) -> float:
    """Exact expected total of never acting."""
    chance, total = np.eye(reward.shape[1])[state], 0.0
    for t in range(rounds):
        total += discount**t * float((chance * reward[..., 0]).sum())
        chance = np.einsum("ns,nst->nt", chance, transition[:, 0])
    return total
