"""Which rule plans a decision, and what the plan is worth to the horizon; the certificate stays the round's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import numpy as np
from scipy.special import stdtrit

from rmab_opt import registry
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Closed
from rmab_opt.decisions import Chooser, Decision, Immediate, Model, Objective, Scores
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.chooser import METHODS
from rmab_opt.decisions.policies.living import Living
from rmab_opt.decisions.policy import Policy, RulePolicy, make_policy, unhurried
from rmab_opt.decisions.priced import Priced
from rmab_opt.decisions.proof import packed, unpacked
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.decisions.saved import read_saved
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, OverdueError, SolverError
from rmab_opt.overdue import given_up_at
from rmab_opt.planning import Bound
from rmab_opt.planning.living import Course, first_gains, gains_at
from rmab_opt.planning.scores import ScoreTable, lagrangian_at, lagrangian_within, priced_action_values
from rmab_opt.problem import Season
from rmab_opt.problem.coupled import CoupledArms
from rmab_opt.problem.dynamics import require_tabular

__all__ = [
    "IMMEDIATE",
    "IN",
    "OUT",
    "PLANNED_BY",
    "Ahead",
    "Outlook",
    "Plan",
    "ahead_of",
    "choose_rule",
    "offered_of",
    "outlook",
    "plan_decision",
    "saved_document",
    "saved_gains",
    "saved_objective",
]

PLANNED_BY = "lagrangian"
"""The rule that plans by default. At 1,200 arms it earned 99.2 % of what acting can add where the best choice of each
round alone earned 67 %; ``lp_update`` earned nothing beyond it at a multiple of the time."""

LIVING = "living"
"""The rule for members that are closed for some rounds, and for a season's total."""

IN, OUT = "this_week_in", "this_week_out"
"""Constraints that a planner's locks of one week become."""

CERTAIN = 1e-12
"""How far a probability may be from one and still be certain."""

IMMEDIATE = "immediate"
"""What `--policy` calls the round's own reward; the policy is ``myopic``."""

PRICES_FIX = "give the file that `decide --out` wrote, and its own model."

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
    worth: Mapping[str, float] = field(default_factory=dict)
    """What one more unit of each limit, in every round to come, is worth by the bound's prices."""
    totals: tuple[float, ...] = ()
    """Of the single runs; those of two plans are paired where the seeds are the same."""

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
        if self.worth:
            priced = ", ".join(f"{price:.4g} by one more of {name}" for name, price in self.worth.items())
            found["the bound grows"] = f"{priced}, by its prices"
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
            "worth": dict(self.worth),
        }


def choose_rule(model: Model, period: int, asked: str | None = None) -> Plan:
    """The rule that decides a round of a model.

    A policy that is asked for comes first, then an objective that the model declares. Otherwise, and where the declared
    objective is but what this round brings to coupled arms, the rule plans wherever it can: by tables, or around the
    means of arms that say how they move together, as long as more than this round is left.
    """
    if asked is not None:
        name = "myopic" if asked == IMMEDIATE else asked
        registry.parse("policy", name)
        return Plan(name, "asked for")
    left = model.problem.horizon - period
    if model.objective.planned_by and isinstance(model.problem.dynamics, CoupledArms) and left > 1:
        return Plan(model.objective.planned_by, f"{left} rounds to go, with arms that change each other's chances")
    if not isinstance(model.objective, Immediate):
        return Plan("", "declared by the model")
    if left <= 1:
        return Plan("myopic", "this is the last round")
    tables = [getattr(model.problem.dynamics, name, None) for name in ("tabular", "frozen_tabular")]
    if isinstance(model.problem.dynamics, Season) or (tables[0] is not None and _changing(model)):
        return Plan(LIVING, f"{left} rounds to go, with limits or members that change")
    if tables[0] is None:
        return Plan("myopic", "these arms have no tables to plan by, only this round's reward is counted")
    return Plan(PLANNED_BY, f"{left} rounds to go")


def _changing(model: Model) -> bool:
    """Whether members are closed for some rounds, which the living plan knows about."""
    return any(isinstance(constraint, Closed) for constraint in model.actions.constraints.values())


def _from_here(model: Model, start: np.ndarray, period: int) -> Model:
    """The model as seen from this round: its start is the state (N,) or belief (N, S), its horizon the rounds left."""
    left = model.problem.horizon - period
    return replace(model, problem=replace(model.problem, start=start, horizon=left), objective=Immediate())


PRICED_SHARE, OFFERED_SHARE, MOMENT = 0.4, 0.8, 0.3
"""Shares of the time left that the default rule's prices may take, and those of a bound beside it; and that any rule
may take until it has something to offer, for which there are some seconds however late it is."""


def _share_of(until: float) -> float | None:
    """Seconds for prices of what is left to a time; None without a limit."""
    return None if np.isinf(until) else PRICED_SHARE * max(0.0, until - perf_counter())


def _made(name: str, here: Model, seconds: float | None) -> Policy:
    """A policy by name; the default rule's prices are those that are found in so many seconds."""
    if name == PLANNED_BY and seconds is not None:
        return RulePolicy(here, PLANNED_BY, partial(lagrangian_within, seconds=seconds))
    return make_policy(name, here)


def _policy(model: Model, plan: Plan, start: np.ndarray, period: int, seconds: float | None = None) -> Policy:
    model = _open(model, plan)
    # The default rule has one table for all rounds, made for the rounds that are left; other policies know the round.
    here = _from_here(model, start, period) if plan.policy == PLANNED_BY else model
    try:
        return _made(plan.policy, here, seconds)
    except (CapabilityError, InfeasibleError):
        if plan.reason == "asked for":
            raise
        # Without prices this round's reward is left; a clash is then explained by the decision itself.
        return make_policy("myopic", model)


def _open(model: Model, plan: Plan) -> Model:
    """The model without the locks of this week: they are lifted again, and lists with and without them compare.

    Its bound holds with them too.
    """
    declared = model.actions.declared
    free = {name: one for name, one in declared.items() if name not in (IN, OUT)}
    if plan.policy not in (PLANNED_BY, LIVING) or len(free) == len(declared):
        return model
    return replace(model, actions=ActionSet(model.actions.columns, free))


def _offered(
    model: Model, plan: Plan, question: Question, belief: np.ndarray | None
) -> tuple[Policy, Proposal | Question]:
    """What the policy hands over; where a state is not known, by the mean of the gains over the states it may be."""
    seconds = None if question.deadline is None else PRICED_SHARE * question.left
    policy = _policy(model, plan, question.state if belief is None else belief, question.period, seconds)
    if belief is not None and isinstance(policy, Living):
        return policy, question.about(policy.scored(belief, question.period, question.shared, seconds=seconds))
    rule = getattr(policy, "rule", None)
    if plan.policy == PLANNED_BY and isinstance(rule, ScoreTable) and rule.bound is not None:
        return policy, question.about(_by_table(rule, question, belief, rule.bound.arm_prices))
    if belief is not None and isinstance(rule, ScoreTable):
        return policy, question.about(_by_table(rule, question, belief))
    if belief is not None and plan.policy == "myopic":
        dynamics: Any = model.problem.dynamics
        frozen = isinstance(dynamics, Season)
        reward = (dynamics.frozen_tabular() if frozen else require_tabular(dynamics, "expected gains"))[1]
        return policy, question.about(Scores(np.einsum("ns,nsa->na", belief, reward)))
    return policy, policy.propose(question, policy.begin(np.random.default_rng(0)))[0]


def _by_table(
    table: ScoreTable, question: Question, belief: np.ndarray | None, prices: np.ndarray | None = None
) -> Scores:
    """Scores of the round; under beliefs the mean over the states that an arm may be in."""
    if belief is None:
        return Scores(table.scores(question.state, question.period, shared=question.shared), prices)
    values = table.values[min(question.period, len(table.values) - 1)]
    return Scores(np.einsum("ns,nsa->na", belief, values), prices)


def _at_prices(model: Model, policy: str, prices: np.ndarray, question: Question, belief: np.ndarray | None) -> Scores:
    """The scores of :func:`_offered` worked out from the prices that a saved decision holds, without a solver."""
    if not np.isfinite(prices).all():
        raise ModelError("prices hold NaN or infinity", PRICES_FIX)
    known = np.eye(model.problem.dynamics.n_states)[question.state] if belief is None else belief
    try:
        if policy == LIVING:
            return Living(model).scored_at(prices, known, question.period, question.shared)
        here = _from_here(model, known, question.period).problem
        each = here.n_arms * here.dynamics.n_actions
        shape = (here.n_arms, -1) if prices.size == each else (here.horizon, here.n_arms, -1)
        fits = prices.size in (each, each * here.horizon)
        return _by_table(lagrangian_at(here, prices.reshape(shape) if fits else prices), question, belief, prices)
    except ModelError as error:
        raise ModelError(f"prices of the decision: {error.message}", PRICES_FIX) from None


def offered_of(model: Model, plan: Plan, question: Question, belief: np.ndarray | None) -> Proposal | Question:
    """What a plan's policy hands over in answer to a question; beliefs as in :func:`plan_decision`."""
    return _offered(model, plan, question, belief)[1] if plan.policy else question.about(model.objective)


def plan_decision(
    model: Model,
    plan: Plan,
    state: np.ndarray | None,
    period: int = 0,
    *,
    belief: np.ndarray | None = None,
    **options: Any,
) -> tuple[Decision, Plan]:
    """The certified decision of a round by a plan, and the plan that made it: another where it was not ready in time.

    Parameters
    ----------
    state
        int (N,); the most probable one where ``belief`` says more.
    belief
        Probability of each state of each arm, (N, S), where some are not known: then the plan takes the mean of the
        gains, never the gain of the most probable state.
    options
        ``shared``, ``solver``, ``relax``, ``title``, ``method``, ``deadline`` and ``watch`` (as of a question) of the
        decision.

    Raises
    ------
    ModelError, InfeasibleError, SolverError, CertificateError
        As :meth:`rmab_opt.decisions.Chooser.decide`.
    """
    objective: Objective = Immediate() if plan.policy else model.objective
    solver, method = options.get("solver"), options.get("method") or "auto"
    if method not in METHODS:
        raise ModelError(f"method is {method!r}", f"use one of {', '.join(METHODS)}.")
    chooser = Chooser(
        model.problem,
        model.actions,
        objective,
        model.solver if solver is None else solver,
        relax=options.get("relax"),
        method="auto" if plan.policy else method,
        title=options.get("title", ""),
        many=False,
    )
    question = chooser.question(state, period, shared=options.get("shared"), deadline=options.get("deadline"))
    question = replace(question, watch=options.get("watch"))
    if not plan.policy:
        return chooser.answer(question), plan
    try:
        try:
            with given_up_at(perf_counter() + max(MOMENT, OFFERED_SHARE * question.left)):
                policy, offered = _offered(model, plan, question, belief)
        except OverdueError:
            # By this round's reward alone, which needs nothing made before.
            plan = Plan("myopic", f"{plan.policy} was not ready in time, this round's reward decides")
            policy, offered = _offered(model, plan, question, belief)
    except InfeasibleError:
        # The plan's own programs find no action either; the decision says which constraints clash.
        return chooser.answer(question), plan
    if method != "auto":
        if not isinstance(offered, Question):
            raise ModelError(f"method {method!r}: policy {policy.name} acts by itself", "leave one of them out.")
        offered = replace(offered, method=method)
    return chooser.settle(question, offered, policy.name), plan


def saved_document(model: Model, decision: Decision, plan: Plan, belief: np.ndarray | None) -> dict[str, Any]:
    """The decision to save: with the policy and the beliefs, so that whoever checks it works out the objective anew."""
    document: dict[str, Any] = json.loads(decision.to_json())
    if plan.policy:
        document["policy"] = plan.policy
    objective = decision.question.objective
    objective = objective.inner if isinstance(objective, Priced) else objective
    if isinstance(objective, Scores) and objective.prices is not None:
        document["prices"] = packed(objective.prices, "<f8")
    if belief is not None:
        unsure = np.flatnonzero(belief.max(axis=1) < 1.0 - CERTAIN)
        ids = model.problem.arms.ids
        document["belief"] = {ids[arm]: [float(chance) for chance in belief[arm]] for arm in unsure}
    return document


def saved_objective(model: Model, saved: Path) -> Objective:
    """The objective behind a saved decision that names its policy, worked out anew from the model and the state.

    Raises
    ------
    ModelError
        When the policy is unknown.
    """
    made = read_saved(saved)
    policy = getattr(made, "policy", None)
    # Of another cohort's file the one who verifies it says so.
    if policy is None or tuple(made.ids) != model.actions.columns.ids:
        return model.objective
    problem = model.problem
    state = problem.check_state(np.asarray(made.state), "the decision's state")
    if not 0 <= made.period < problem.horizon:
        raise ModelError(
            f"{saved}: period is {made.period}", f"a decision of this model has one from 0 to {problem.horizon - 1}."
        )
    plan = Plan(policy, "saved")
    chooser = Chooser(problem, model.actions, Immediate(), model.solver, many=False)
    shared = problem.shared_array(made.shared, "the decision's shared")
    question = chooser.question(state, made.period, shared=shared)
    belief = None
    chances: Mapping[str, Sequence[float]] = getattr(made, "belief", {})
    if chances:
        belief = np.eye(problem.dynamics.n_states)[state]
        for name, row in chances.items():
            if len(row) != problem.dynamics.n_states:
                raise ModelError(
                    f"{saved}: belief of {name!r} has {len(row)} chances", f"give {problem.dynamics.n_states}."
                )
            belief[problem.arms.index(name)] = row
    prices = _recorded(made)
    if prices is not None:
        return _at_prices(model, policy, prices, question, belief)
    _, offered = _offered(model, plan, question, belief)
    return offered.objective if isinstance(offered, Question) else question.objective


def _recorded(made: Any) -> np.ndarray | None:
    """The prices of a saved decision, where it holds any and its rule has scores from them."""
    packed_prices = getattr(made, "prices", None)
    if packed_prices is None or made.policy not in (LIVING, PLANNED_BY):
        return None
    return np.asarray(unpacked(packed_prices, "<f8", "prices"), dtype=np.float64)


def saved_gains(model: Model, saved: Path) -> np.ndarray | None:
    """Gain of acting on every arm by state, (N, S), at the prices of a saved decision; without a solver.

    What is closed or left of a season stays out of it. None where the file holds no prices of two actions.
    """
    made = read_saved(saved)
    prices = _recorded(made)
    policy = getattr(made, "policy", None)
    if prices is None or model.problem.dynamics.n_actions != 2 or not 0 <= made.period < model.problem.horizon:
        return None
    known = np.full((model.problem.n_arms, model.problem.dynamics.n_states), 1.0 / model.problem.dynamics.n_states)
    if policy == LIVING:
        found = first_gains(Living(model).course(known, made.period, limits=False), prices)
    else:
        here = _from_here(model, known, made.period).problem
        found = lagrangian_at(here, prices.reshape(-1, here.n_arms, 2)[0]).values[0]
    return np.asarray(found[..., 1] - found[..., 0])


def outlook(
    model: Model,
    plan: Plan,
    start: np.ndarray,
    period: int = 0,
    *,
    shared: np.ndarray | None = None,
    episodes: int = EPISODES,
    seed: int = 0,
) -> Outlook | None:
    """What the plan earns to the horizon; None where no bound can be had or only this round is left.

    Expected rewards are added along simulated runs of the plan. What the decomposition's values say about chance is
    subtracted (a control variate with mean zero), so that a few runs suffice.

    Parameters
    ----------
    start
        States (N,), or beliefs (N, S).
    """
    seen = ahead_of(model, plan, start, period, shared=shared) if episodes > 0 else None
    return None if seen is None else seen.outlook(episodes, seed)


def ahead_of(
    model: Model,
    plan: Plan,
    start: np.ndarray,
    period: int = 0,
    *,
    shared: np.ndarray | None = None,
    until: float = np.inf,
) -> Ahead | None:
    """What lies ahead of a round with its bound; None where no bound can be had or only this round is left.

    Until ``until``, a time of ``perf_counter``, prices are sought for the bound; it holds with those found by then.
    """
    if model.problem.horizon - period <= 1:
        return None
    model = _open(model, plan)
    try:
        with given_up_at(until):
            if plan.policy == LIVING:
                return Ahead.living(model, plan, start, period, shared, until)
            return Ahead.plain(model, plan, start, period, until)
    except (CapabilityError, InfeasibleError, SolverError, ModelError):
        return None


@dataclass(frozen=True, eq=False)
class Ahead:
    """What lies ahead of a round: a policy to run, tables, and the values V (T + 1, N, S) of the decomposition."""

    model: Model
    policy: Policy
    first: int
    start: np.ndarray
    shared: np.ndarray | None
    transition: np.ndarray
    reward: np.ndarray
    values: np.ndarray
    bound: float
    worth: Mapping[str, float]
    course: Course | None = None
    """What the living plan looks ahead on, with the prices that it found."""
    prices: tuple[np.ndarray, float] | None = None

    @classmethod
    def plain(cls, model: Model, plan: Plan, start: np.ndarray, period: int, until: float = np.inf) -> Ahead:
        if model.problem.shared_names or model.actions.open_constraints:
            raise CapabilityError(
                "an outlook over limits that change",
                model.actions,
                ("use policy 'living'", "set limits that do not change"),
            )
        here = _from_here(model, start, period)
        transition, reward = require_tabular(here.problem.dynamics, "an outlook")
        seconds = _share_of(until)
        limit = upper_bound(here, seconds=seconds)
        assert isinstance(limit, Bound)
        declared = here if plan.policy else replace(here, objective=model.objective)
        policy = _made(plan.policy or "model", declared, seconds)
        _, values = priced_action_values(
            transition, reward, limit.arm_prices, discount=here.problem.discount, horizon=here.problem.horizon
        )
        weight = here.problem.discount ** np.arange(here.problem.horizon)
        worth: dict[str, float] = {}
        if limit.prices is not None:
            each = np.broadcast_to(limit.prices, (len(weight), len(limit.price_names)))
            worth = {name: float(weight @ each[:, k]) for k, name in enumerate(limit.price_names)}
        start = here.problem.start_distribution
        return cls(here, policy, 0, start, None, transition, reward, values, limit.value, worth)

    @classmethod
    def living(
        cls, model: Model, plan: Plan, start: np.ndarray, period: int, shared: np.ndarray | None, until: float = np.inf
    ) -> Ahead:
        policy = make_policy(f"{LIVING}:again=false", model)
        assert isinstance(policy, Living)
        belief = np.eye(policy.reward.shape[1])[start] if start.ndim == 1 else start
        shared = model.problem.check_shared(model.problem.start_shared if shared is None else shared)
        found = policy.bound(belief, period, shared, seconds=_share_of(until))
        weight = model.problem.discount ** np.arange(len(found.prices))
        worth = {"the acts of a round": float(weight @ found.prices[:, 0])}
        if shared is not None:
            worth["the season's acts"] = found.saved
        return cls(
            model, policy, period, belief, shared, policy.transition, policy.reward, found.values, found.value, worth,
            policy.course(belief, period, shared), (found.prices, found.saved),
        )  # fmt: skip

    @property
    def rounds(self) -> int:
        return self.model.problem.horizon - self.first

    @cached_property
    def living_part(self) -> tuple[Course, tuple[np.ndarray, float]]:
        """What the living plan looks ahead on, and prices of its bound, whatever rule plans."""
        if self.course is not None and self.prices is not None:
            return self.course, self.prices
        policy = make_policy(f"{LIVING}:again=false", self.model)
        assert isinstance(policy, Living)
        found = policy.bound(self.start, self.first, self.shared)
        return policy.course(self.start, self.first, self.shared), (found.prices, found.saved)

    def under(self, other: Model) -> tuple[float, np.ndarray]:
        """The bound and the round's expected gains (N, A) under another model's tables, at this plan's prices."""
        course, prices = self.living_part
        dynamics: Any = other.problem.dynamics
        tables = dynamics.frozen_tabular() if isinstance(dynamics, Season) else dynamics.tabular()
        return gains_at(replace(course, transition=tables[0], reward=tables[1]), *prices)

    @overload
    def outlook(self, episodes: int, seed: int = 0) -> Outlook: ...

    @overload
    def outlook(self, episodes: int, seed: int = 0, *, until: float) -> Outlook | None: ...

    def outlook(self, episodes: int, seed: int = 0, *, until: float = np.inf) -> Outlook | None:
        """What the plan earns, from so many runs, or from those that end before ``until``; None where none does."""
        totals: list[float] = []
        for child in np.random.SeedSequence(seed).spawn(episodes):
            total = self.run(np.random.default_rng(child), until)
            if total is None:
                break
            totals.append(total)
        runs = len(totals)
        if not runs:
            return None
        mean, half = float(np.mean(totals)), 0.0
        if runs > 1:
            half = float(stdtrit(runs - 1, 0.975) * np.std(totals, ddof=1) / np.sqrt(runs))
        return Outlook(
            self.rounds, mean, mean - half, mean + half, runs, self.idle(), self.bound, dict(self.worth),
            tuple(totals),
        )  # fmt: skip

    def run(self, rng: np.random.Generator, until: float = np.inf) -> float | None:
        """Total of one run, less what the values say was chance; None when ``until`` comes before its end."""
        problem, arms = self.model.problem, np.arange(self.model.problem.n_arms)
        due = None if np.isinf(until) else until
        cumulative = np.cumsum(self.start, axis=1)
        cumulative[:, -1] = 1.0
        now = (rng.random(len(arms))[:, None] >= cumulative).sum(axis=1)
        memory, shared = self.policy.begin(rng), self.shared
        total = float((self.start * self.values[0]).sum() - self.values[0][arms, now].sum())
        for t in range(self.rounds):
            try:
                with unhurried(until):
                    made, memory = self.policy.act(now, self.first + t, memory, shared, deadline=due)
            except OverdueError:
                return None
            taken = self.model.actions.columns.arm_action(made)
            ahead = np.einsum("ns,ns->", self.transition[arms, taken, now], self.values[t + 1])
            weight = problem.discount**t
            total += weight * float(self.reward[arms, now, taken].sum())
            now, _, shared = problem.step(now, taken, shared, rng)
            total += weight * problem.discount * float(ahead - self.values[t + 1][arms, now].sum())
        return total

    def idle(self) -> float:
        """Exact expected total of never acting."""
        chance, total = self.start, 0.0
        for t in range(self.rounds):
            total += self.model.problem.discount**t * float((chance * self.reward[..., 0]).sum())
            chance = np.einsum("ns,nst->nt", chance, self.transition[:, 0])
        return total
