"""Ways from a question to a proposal, one small class each; the chooser tries them in the order of :func:`ways`.

``applies`` says why a way cannot answer a question, or nothing; ``propose`` answers it. Adding a way is adding a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.labels import searched
from rmab_opt.actions.tours import collected
from rmab_opt.actions.walks import MOST_STEPS
from rmab_opt.decisions.bench import Bench, Loaded, different, relaxation
from rmab_opt.decisions.certify import allowed_gap
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective
from rmab_opt.decisions.question import Proposal, Question, Status
from rmab_opt.encoder.record import LARGE_M
from rmab_opt.errors import (
    CapabilityError,
    CertificateError,
    InfeasibleError,
    LimitError,
    ModelError,
    OverdueError,
    SolverError,
)
from rmab_opt.planning import assign
from rmab_opt.search import climb, maximise
from rmab_opt.solver import Result, Session

__all__ = ["METHODS", "Way", "allowed_start", "refuse", "ways"]

SEARCH_FROM_NEURONS = 25
"""Neurons that can bend, from which ``auto`` prefers the exact search to the program where rows overlap."""

SEARCH_FROM_BINARIES = 12
"""Networks with fewer indicator binaries are solved faster than a start is searched for: a pooled network of 240
arms with a head of 4 took 0.02 s to solve and 0.15 s to search."""


LARGEST_COVER = 30_000
"""Entries of the rows of an objective with a greedy rule from which ``auto`` leaves the program out: it then takes
minutes for a gap that tangents show to be a few thousandths."""


WANTED = 1e-6
"""A relaxation's share of a column that is nearer to one than this is a whole one."""


TOUR_SHARE, LABEL_SHARE = 0.15, 0.8
"""Shares of the time until which routes are searched for, and labels; the rest is for checking these."""

TOUR_ROUNDS, MANY_ROUNDS = 10, 50
"""Rounds of that search a stop, and in all where many decisions follow: labels mend routes as well."""

MANY_STEPS = 10_000_000
"""Times by moves of one pass up to which labels grow where many decisions follow: 0.1 s."""

SMALL_PROGRAM = 30_000
"""Moves of routes up to which the program goes on where labels leave a gap."""


class Begun(NamedTuple):
    """An allowed action to begin from, what it is worth, and who does what where that is known."""

    action: np.ndarray
    value: float
    witness: tuple[Mapping[str, str], ...] = ()


class Way(Protocol):
    """One way of answering questions."""

    name: str
    """The method that asks for this way by name."""
    final: bool
    """Whether a proposal that does not survive its re-check is an error; otherwise the next way is asked."""

    def applies(self, question: Question) -> str | None:
        """Why it cannot answer the question; None when it can."""
        ...

    def propose(self, question: Question) -> Proposal | None:
        """An answer; None when it did not come to one, and the next way should be asked."""
        ...


class Prices:
    """Linear objectives under plain budgets (:mod:`rmab_opt.planning.assignment`) or nested counts (by sorting).

    Either way the prices are the proof.
    """

    name = "prices"
    final = False

    def __init__(self, bench: Bench) -> None:
        self.actions = bench.actions

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        if not isinstance(question.objective, LinearObjective) or not question.objective.linear(question.situation):
            return "the objective is not linear in the columns"
        budgets = self.actions.shape.budgets
        if budgets is None:
            nested = question.plain and self.actions.shape.nested
            return None if nested else "the constraints are neither one budget an action nor nested upper counts"
        limits, equal = budgets
        if equal and ((limits != np.floor(limits)).any() or limits.sum() > question.problem.n_arms):
            return "budgets to be used in full are no whole numbers of arms"
        return None

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        assert isinstance(question.objective, LinearObjective)
        gain, base = question.objective.coefficients(question.situation)
        if self.actions.shape.budgets is None:
            action, prices = self.actions.shape.sorted(gain)
            value = base + float(gain @ action)
            return Proposal(action, value, value, "prices", {"prices": prices}, status="optimal", by="sorting")
        limits, equal = self.actions.shape.budgets
        effect = self.actions.columns.effect
        level = np.rint(effect.data).astype(np.int64)
        scores = np.zeros((question.problem.n_arms, question.problem.dynamics.n_actions))
        scores[effect.indices, level] = gain
        try:
            found = assign(scores, limits, equal=equal)
        except InfeasibleError:
            raise self.actions.infeasibility(question.until) from None
        if found.method != "prices":
            return None
        action = (found.action[effect.indices] == level).astype(np.int64)
        return Proposal(
            action,
            base + found.value,
            base + found.bound,
            "prices",
            {"prices": self._row_prices(scores, found.prices)},
            status="optimal",
            by="price iteration",
        )

    def _row_prices(self, scores: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Prices of actions as prices of the set's rows: of each count, and of each arm's own row what it earns."""
        plain, effect = self.actions.plain_rows, self.actions.columns.effect
        level = np.rint(effect.data).astype(np.int64)
        worth = scores[:, 1:] - scores[:, :1] - prices
        found = np.zeros(len(plain.lower))
        for row in range(len(found)):
            members = plain.matrix.indices[plain.matrix.indptr[row] : plain.matrix.indptr[row + 1]]
            arms = effect.indices[members]
            if len(arms) == len(scores) and (level[members] == level[members[0]]).all():
                found[row] = prices[level[members[0]] - 1] / plain.matrix.data[plain.matrix.indptr[row]]
            elif len(arms) and (arms == arms[0]).all() and plain.upper[row] == 1.0:
                found[row] = max(0.0, float(worth[arms[0]].max()))
        return found


class Routes:
    """The best action within a listed route, where a route and at most a count are all that is declared."""

    name = "routes"
    final = True

    def __init__(self, bench: Bench) -> None:
        self.actions = bench.actions

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        if not isinstance(question.objective, LinearObjective) or not question.objective.linear(question.situation):
            return "the objective is not linear in the columns"
        if not question.many and not self.actions.shape.few_stops:
            return "listing routes pays for many decisions only"
        if (question.many and self.actions.listed is not None) or self.actions.routes is None:
            return "no list of routes is needed or known"
        return None

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        assert isinstance(question.objective, LinearObjective)
        assert self.actions.routes is not None
        gain, base = question.objective.coefficients(question.situation)
        action, value = self.actions.routes.best(gain)
        count = len(self.actions.routes.sets)
        by = f"listing of {count} route{'s' * (count != 1)}"
        return Proposal(action, base + value, base + value, "listing", status="optimal", by=by)


class Walks:
    """Routes over more stops than can be listed: a local search, and the labels that prove what no route exceeds.

    Where a gap is left, the program goes on as long as it is small and there is time.
    """

    name = "labels"
    final = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        if not isinstance(question.objective, LinearObjective) or not question.objective.linear(question.situation):
            return "the objective is not linear in the columns"
        if not question.plain or (question.many and self.bench.actions.listed is not None):
            return "no bound over all routes is needed"
        task = self.bench.actions.shape.orienteering
        if task is None or task.work > MOST_STEPS:
            return "routes are not all that is declared, or they are too long"
        return None

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        assert isinstance(question.objective, LinearObjective)
        actions, (gain, base) = self.bench.actions, question.objective.coefficients(question.situation)
        task, profile, began = actions.shape.orienteering, question.profile, perf_counter()
        assert task is not None
        seconds = np.inf if question.seconds is None else question.seconds

        def late(share: float) -> bool:
            stopped = question.watch is not None and question.watch()
            return stopped or perf_counter() - began >= share * seconds

        rng = np.random.default_rng([question.seed, len(gain)])
        rounds = MANY_ROUNDS if question.many else TOUR_ROUNDS * len(task.between)
        routes = collected(task, task.worth(gain), rng, rounds=rounds, late=lambda: late(TOUR_SHARE))
        value = task.value(routes, gain)
        enough = allowed_gap(profile, value, value, 0.0) if np.isfinite(value) else 0.0
        # A little less, as what is rounded outward has to stay within.
        routes, labels, limit = searched(
            task, gain, routes, rng, gap=0.8 * enough, steps=MANY_STEPS if question.many else MOST_STEPS,
            late=lambda: late(LABEL_SHARE),
        )  # fmt: skip
        bound, begun = base + limit, actions.shape.routed(routes, gain)
        if question.start is not None and (begun is None or float(gain @ question.start) > float(gain @ begun[0])):
            begun = question.start, []
        if begun is None:
            return self._with_program(question, bound, {"labels": labels}, None)
        value = base + float(gain @ begun[0])
        found = Proposal(
            begun[0], value, bound, "labels", {"labels": labels}, "optimal" if bound - value <= enough else "limit",
            by="labels of walks", witness=tuple(begun[1]),
        )  # fmt: skip
        if found.status == "optimal" or late(LABEL_SHARE) or actions.shape.moves > SMALL_PROGRAM:
            return found
        return self._with_program(replace(question, start=found.action), bound, {"labels": labels}, found)

    def _with_program(
        self, question: Question, bound: float, data: Mapping[str, Any], found: Proposal | None
    ) -> Proposal | None:
        """The better of the labels' answer and the program's that starts from it, under the lower bound of both."""
        try:
            other = MixedInteger(self.bench)._solved(question)
        except (SolverError, CertificateError):
            if found is None:
                raise
            return found
        bound, data = min(bound, other.bound), {**other.data, **data}
        if found is None or (other.value is not None and found.value is not None and other.value > found.value):
            return replace(other, bound=bound, data=data)
        return replace(found, bound=bound, data=data, proof="dual", status=other.status, by=f"{found.by}, {other.by}")


class Listing:
    """The value of every allowed action, one matrix product, for small sets."""

    name = "listing"
    final = True

    def __init__(self, bench: Bench) -> None:
        self.actions = bench.actions

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        if question.method != "listing" and not (question.many and question.objective.listable):
            return "listing pays for many decisions by a value that is cheap"
        return None if self.actions.listed is not None else "there are too many allowed actions to list"

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        actions, objective, situation = self.actions.listed, question.objective, question.situation
        assert actions is not None
        if not len(actions):
            raise self.actions.infeasibility(question.until)
        if isinstance(objective, LinearObjective) and objective.linear(situation):
            gain, base = objective.coefficients(situation)
            values = actions @ gain + base
        else:
            values = objective.batch_value(actions, situation)
        best = int(values.argmax())
        value = float(values[best])
        by = f"listing of {len(actions)}"
        return Proposal(actions[best].astype(np.int64), value, value, "listing", status="optimal", by=by)


class Packing:
    """Rosters and loads that are too large for a program: prices of rows, and what they want found room for.

    The rows are :attr:`rmab_opt.actions.ActionSet.outer`; the bound is theirs, the action is held against the checks.
    """

    name = "packing"
    final = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        actions = self.bench.actions
        if not isinstance(question.objective, LinearObjective) or not question.objective.linear(question.situation):
            return "the objective is not linear in the columns"
        if actions.outer is None:
            return "a program of the set is small enough"
        if question.avoid or question.relax is not None or not actions.monotone or actions.shape.lower_limits:
            return "columns may not be left out freely"
        return None

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        assert isinstance(question.objective, LinearObjective)
        actions, (gain, base) = self.bench.actions, question.objective.coefficients(question.situation)
        # What is forced is worth more than all the rest: the bound of such values, less this, is one of what holds it.
        forced = actions.columns.indices(list(question.force))
        bonus = 2.0 * float(np.abs(gain).sum()) + 1.0
        asked = gain.copy()
        asked[forced] += bonus
        found = self.bench.relaxed(asked, None if question.deadline is None else question.seconds)
        share, prices = np.zeros(len(gain)), found.row_duals
        worth = asked
        if found.has_solution and found.x is not None and prices is not None:
            program, act = actions.program
            share, worth = found.x[act], asked - program.matrix.T @ prices
        wanted = np.flatnonzero((share > 1 - WANTED) & (asked > 0))
        wanted = wanted[np.argsort(-worth[wanted], kind="stable")]
        plain = None if prices is None else prices[: len(actions.plain_rows.lower)]
        action, witness = actions.shape.packed(wanted, asked, plain, until=question.way_until)
        if question.start is not None and float(asked @ question.start) > float(asked @ action):
            action, witness = question.start, []
        if not action[forced].all():
            return None
        bound = base + float(found.bound) - bonus * len(forced) if found.status == "optimal" else np.inf
        return Proposal(
            action,
            base + float(gain @ action),
            bound,
            "dual",
            {} if prices is None else {"prices": prices},
            status="limit",
            by="prices and packing",
            witness=tuple(witness),
            remarks={"program": f"left out, too large for {len(gain)} columns; --method program asks for it"},
        )


class Search:
    """The exact search of :mod:`rmab_opt.search.branch_and_bound`, for networks."""

    name = "search"
    final = False

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`; under ``auto`` a rule as measured, see ``docs/decisions.md``.

        Over disjoint limits and units the search was faster in 144 of 144 recorded decisions, whatever the network.
        Rows that overlap it prices, and weights that must add up to something its maximisers miss: both close small
        gaps slowly, so only networks that bend much go to it there. Constraints whose own variables it cannot read
        go to the program.
        """
        if not isinstance(question.objective, NetworkObjective):
            return "the objective is no network"
        if question.method == self.name:
            return None
        support = self.bench.support
        if len(self.bench.actions.structured) > len(support.assignments):
            return "a constraint has variables that the search cannot read"
        plain = len(support.families) == 1 and all(
            row.counts or (row.lower <= 0 and bool((row.weight > 0).all())) for row in support.rows
        )
        ready = self.bench.embedded(question)
        if plain or ready.unstable >= SEARCH_FROM_NEURONS or ready.largest > LARGE_M:
            return None
        return "the program is faster where rows overlap and few neurons bend"

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        ready, profile = self.bench.embedded(question), question.profile
        try:
            found = maximise(
                ready.network,
                self.bench.support,
                question.actions.allows,
                question.start,
                gap=profile.relative_gap,
                absolute_gap=profile.absolute_gap,
                seconds=question.seconds,
                nodes=profile.nodes,
                interrupt=question.watch,
                root=ready.bounds,
                climbed=ready.climbed,
            )
        except InfeasibleError:
            raise question.actions.infeasibility(question.until) from None
        status: Status = "optimal" if found.status == "optimal" else "limit"
        return Proposal(
            found.action,
            found.value,
            found.bound,
            "search",
            {"tree": found.tree},
            status=status,
            nodes=found.nodes,
            by="exact search",
        )


class Greedy:
    """One by one by the objective's gains, for objectives that offer it, with the bound that shrinking gains prove."""

    name = "greedy"
    final = True

    def __init__(self, bench: Bench) -> None:
        self.actions = bench.actions

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        return None if question.method == self.name else "it is asked for by name only"

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`."""
        return grown(question, self.actions)


def grown(question: Question, actions: ActionSet) -> Proposal:
    """The proposal of the objective's own greedy rule with the limit it proves."""
    action, value, bound, remarks = question.objective.greedy(actions, question.situation, quick=question.many)
    closed = bound - value <= 1e-9 * (1.0 + abs(value))
    return Proposal(
        action, value, bound, "submodular", status="optimal" if closed else "heuristic", by="lazy greedy",
        remarks=remarks,
    )  # fmt: skip


class MixedInteger:
    """The mixed-integer program, for every objective and every question.

    Parameters
    ----------
    tight
        The same program once more with the tightest tolerances HiGHS has, for answers that did not survive.
    """

    name = "program"

    def __init__(self, bench: Bench, *, tight: bool = False) -> None:
        self.bench, self.final = bench, tight

    def applies(self, question: Question) -> str | None:
        """See :class:`Way`."""
        return None

    def propose(self, question: Question) -> Proposal | None:
        """See :class:`Way`; greedy's answer, where there is one, starts the program and stands as the least."""
        head = self._head(question)
        if head is None:
            return self._solved(question)
        by_name, entries = question.method == self.name, question.objective.greedy_entries(question.situation)
        if self.final or (entries == np.inf and not by_name):
            return head
        if not by_name and (self._closed(question, head) or entries > LARGEST_COVER):  # type: ignore[operator]
            left_out = {"program": f"left out, {entries:.0f} entries; --method program asks for it"}
            return replace(head, remarks={**head.remarks, **(left_out if entries > LARGEST_COVER else {})})  # type: ignore[operator]
        begun = question.start
        if begun is None or question.objective.value(begun, question.situation) < (head.value or -np.inf):
            begun = head.action
        try:
            found = self._solved(replace(question, start=begun))
        except (SolverError, CertificateError) as error:
            return replace(head, by=f"{head.by} ({error.message})")
        return _better(found, head)

    def _head(self, question: Question) -> Proposal | None:
        """What the objective's greedy rule answers; None where it has none or the set cannot be grown."""
        actions = self.bench.actions
        if not question.plain or not actions.monotone or actions.structured:
            return None
        if question.objective.greedy_entries(question.situation) is None:
            return None
        return grown(question, actions)

    def _closed(self, question: Question, head: Proposal) -> bool:
        """Whether greedy's own gap is within the profile's."""
        profile, value = question.profile, head.value
        assert value is not None
        return head.bound - value <= max(profile.absolute_gap, profile.relative_gap * abs(value))

    def _solved(self, question: Question) -> Proposal:
        """By the program alone."""
        loaded = self.bench.load(question, self._reached(question))
        session, act = loaded.session, loaded.act
        forced = act[question.actions.columns.indices(list(question.force))]
        extra = np.empty(0, dtype=np.int64)
        if question.avoid:
            extra = session.add_rows(*different(question.avoid, question.differ, act, session.program.matrix.shape[1]))
        session.set_bounds(forced, np.ones(len(forced)), np.ones(len(forced)))
        try:
            incumbent = None if question.avoid or question.force else self._start(question, loaded)
            if incumbent is not None:
                session.start(act, incumbent.action)
            if self.final:
                result = self._tightly(session, None if question.deadline is None else question.seconds)
            else:
                seconds = None if question.deadline is None else question.seconds
                result = session.solve(seconds=seconds, interrupt=question.watch)
        finally:
            session.set_bounds(forced, np.zeros(len(forced)), np.ones(len(forced)))
            if len(extra):
                session.delete_rows(extra)
        return self._proposal(question, loaded, result, incumbent)

    def _reached(self, question: Question) -> float | None:
        """The value of an allowed action, from which networks' bounds may be cut."""
        objective = question.objective
        if not question.plain or not isinstance(objective, NetworkObjective) or objective.effort != "cutoff":
            return None
        points = question.actions.witnesses
        if question.start is not None:
            points = np.concatenate([points, question.start[None]])
        return float(objective.batch_value(points, question.situation).max()) if len(points) else None

    def _start(self, question: Question, loaded: Loaded) -> Begun | None:
        """The best allowed action at hand: the given one or a grown one, improved where that pays."""
        at_hand = [] if question.start is None else [question.start]
        objective, situation = question.objective, question.situation
        bends = loaded.record is not None and loaded.record.counts["binaries"] > SEARCH_FROM_BINARIES
        if isinstance(objective, NetworkObjective) and bends and question.relax is None:
            if not at_hand and question.actions.growable:
                # Growing needs no solver; other sets leave the start to the solver itself.
                at_hand = list(self.bench.samples(question.seed))
            if at_hand:
                best = max(at_hand, key=lambda action: objective.value(action, situation))
                allow, allows = question.actions.plain_rows.allow, question.actions.allows
                return Begun(*climb(objective.network(situation), best, allow, allows))
        return Begun(at_hand[0], objective.value(at_hand[0], situation)) if at_hand else None

    def _data(self, question: Question, loaded: Loaded) -> dict[str, object]:
        """Prices of the linear relaxation, from which a bound is proven."""
        objective = question.objective
        if not question.plain or isinstance(objective, NetworkObjective):
            return {}
        if isinstance(objective, LinearObjective) and objective.linear(question.situation):
            limit = None if question.deadline is None else question.seconds
            return {"prices": self.bench.prices(objective.coefficients(question.situation)[0], limit)}
        program = loaded.session.program
        limit = None if question.deadline is None else question.seconds
        with suppress(OverdueError):
            return {"prices": relaxation(program).solve(seconds=limit).row_duals, "program": (program, loaded.act)}
        return {}

    def _tightly(self, session: Session, seconds: float | None) -> Result:
        profile = self.bench.profile
        options = dict(profile.options)
        if profile.solver == "highs":
            # Presolve and tolerances of 1e-9 together cut off optima in HiGHS 1.16; without presolve they do not.
            options |= {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9, "presolve": "off"}
        return Session.from_arrays(session.program, replace(profile, options=options, relative_gap=0.0)).solve(
            seconds=seconds
        )

    def _proposal(self, question: Question, loaded: Loaded, result: Result, incumbent: Begun | None) -> Proposal:
        """What the solver's result comes to; raises when there is nothing honest to propose."""
        profile = self.bench.profile
        _judge_encoding(question, loaded, [] if incumbent is None else [incumbent.action])
        if result.status in ("infeasible", "infeasible_or_unbounded"):
            if question.avoid:
                raise InfeasibleError("no other action differs enough", "ask for a smaller difference.")
            if question.force:
                raise InfeasibleError(
                    f"no action contains {', '.join(question.force)} under the constraints",
                    "lock it in and read the explanation.",
                )
            raise question.actions.infeasibility(question.until)
        if result.status in ("unbounded", "error", "empty"):
            raise SolverError(f"the solver answered {result.status!r}", "report this with the model file.")
        by, claimed, action, value = profile.solver, result.objective, None, -np.inf
        witness: tuple[Mapping[str, str], ...] = ()
        if result.has_solution and result.x is not None:
            witness = loaded.witness(result.x)
            action = np.rint(result.x[loaded.act]).astype(np.int64)
            value = question.objective.value(action, question.situation)
        if incumbent is not None and (action is None or incumbent.value > value):
            # The solver's best is not better than the start: within its gap, or stopped before it had any.
            if action is None:
                claimed, by = incumbent.value, f"local search ({profile.solver} found nothing in time)"
            else:
                claimed = max(claimed, incumbent.value)
            action, witness = incumbent.action, incumbent.witness
        if action is None:
            raise LimitError(
                f"no action found before the limit ({result.status})",
                "give the profile more seconds, or loosen the constraints.",
            )
        _judge_encoding(question, loaded, [action], witness)
        ceiling = np.inf if loaded.record is None else loaded.record.output[1]
        return Proposal(
            action,
            claimed,
            np.inf if np.isnan(result.bound) else min(float(result.bound), ceiling),
            "dual",
            self._data(question, loaded),
            status="optimal" if result.status == "optimal" else "limit",
            nodes=int(result.nodes),
            by=by,
            witness=witness,
            remarks={"solver": "its bound lay below its own point's value and counts for nothing"}
            if result.refuted
            else {},
        )


def _better(found: Proposal, head: Proposal) -> Proposal:
    """The better action of program and greedy under the lower limit of both; greedy's stays as a proof of its own."""
    data = {**found.data, "gains": head.bound}
    bound = min(found.bound, head.bound)
    if found.value is not None and head.value is not None and found.value >= head.value:
        return replace(found, bound=bound, data=data, remarks={**head.remarks, **found.remarks})
    return replace(
        head, bound=bound, data=data, proof=found.proof, status=found.status, nodes=found.nodes,
        by=f"{head.by} ({found.by} found nothing better)",
    )  # fmt: skip


def _judge_encoding(
    question: Question, loaded: Loaded, actions: list[np.ndarray], witness: Sequence[Mapping[str, str]] = ()
) -> None:
    """Raise when the program leaves an allowed action out, or gives it another value than the objective does."""
    if loaded.record is None:
        return
    relaxed = question.relax is not None
    allowed = [action for action in actions if relaxed or question.actions.allows(action, witness)]
    points = np.array(allowed, dtype=np.int64).reshape(-1, len(question.actions))
    if not relaxed:
        points = np.concatenate([question.actions.witnesses, points])
    faults = loaded.record.faults(points) if len(points) else []
    if faults:
        raise CertificateError(
            f"the program is not the network: {faults[0]}"
            + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""),
            "report this with the model file and the network; another `formulation` or `effort` may be right.",
        )


def allowed_start(actions: ActionSet, start: np.ndarray, relax: str | None) -> np.ndarray:
    """A start as int64 (C,); ModelError when it breaks a constraint."""
    start = actions.check_action(start)
    broken = actions.violations(start)
    if broken and relax is None:
        raise ModelError(f"start breaks {', '.join(broken)}", "start from an allowed action.")
    return start


def ways(bench: Bench) -> tuple[Way, ...]:
    """All ways over one action set, in the order in which ``auto`` asks them."""
    return (
        Prices(bench),
        Routes(bench),
        Walks(bench),
        Listing(bench),
        Greedy(bench),
        Packing(bench),
        Search(bench),
        MixedInteger(bench),
        MixedInteger(bench, tight=True),
    )


METHODS = ("auto", "program", "search", "prices", "listing", "greedy", "packing")
"""What :class:`rmab_opt.decisions.chooser.Chooser` takes as ``method``."""

REFUSALS = {
    "prices": ("assignment by prices", ("use method 'program'", "declare one budget an action only")),
    "listing": (
        "a list of all allowed actions",
        ("use method 'program'", "declare tighter constraints, or fewer columns"),
    ),
    "search": ("exact search", ("use method 'program'", "use a network objective")),
}


def refuse(name: str, question: Question) -> CapabilityError:
    """The error for a way that was asked for by name and does not apply."""
    what, ways_out = REFUSALS.get(name, (f"method {name!r}", ("use method 'auto'", "use method 'program'")))
    return CapabilityError(what, question.actions if name != "search" else question.objective, ways_out)
