"""`decide`: solve the round's program, re-check the answer, return it with its certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import numpy as np
import pyomo.environ as pyo
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.decision import VALUE_TOLERANCE, Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective, Objective, Situation
from rmab_opt.encoder import Network, Support, bounds
from rmab_opt.encoder.record import LARGE_M
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, ModelError, SolverError
from rmab_opt.parallel import pmap
from rmab_opt.planning import assign
from rmab_opt.problem import Problem, Table
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.search.local_search import climb, climb_all, slopes
from rmab_opt.solver import Profile, Program, Result, Session, load_profile

__all__ = ["METHODS", "Chooser", "decide"]

METHODS = ("auto", "program", "search", "prices", "listing", "greedy")
"""Ways to an action: the program always, the search for networks, prices for scores under plain budgets, listing for
small sets, greedy for objectives that offer it."""

SEARCH_FROM_NEURONS = 25
"""Neurons that can bend, from which ``auto`` prefers the exact search to the program where rows overlap."""

CHUNK = 32
"""States that ``batch_decide`` looks at together and that travel to a worker together, however many workers."""


WHOLE = 1e-9
"""Shares of columns nearer to one than this are taken whole."""

WITNESSES = 8
"""Allowed actions that every network decision's bounds and rows are held against, beside its own and its start."""


@dataclass(frozen=True)
class Claim:
    """What a solver says of its answer, before the re-check."""

    action: np.ndarray
    value: float
    bound: float
    nodes: int
    optimal: bool
    kind: str


@dataclass(frozen=True, eq=False)
class _Embedded:
    """The network at a situation, with linear bounds of its pre-activations and last of its output."""

    network: Network
    bounds: list[tuple[np.ndarray, np.ndarray]]
    climbed: bool = False
    """Whether a local search has found the action to begin from."""

    @property
    def ceiling(self) -> float:
        """No allowed action is worth more."""
        return float(self.bounds[-1][1][0])

    @property
    def unstable(self) -> int:
        """Neurons that can still bend."""
        return sum(int(((low < 0) & (high > 0)).sum()) for low, high in self.bounds[:-1])

    @property
    def largest(self) -> float:
        """Largest coefficient that an indicator row would need."""
        parts = [np.maximum(-low, high)[(low < 0) & (high > 0)] for low, high in self.bounds[:-1]]
        return float(np.concatenate(parts).max(initial=0.0)) if parts else 0.0


class Chooser:
    """The program of a problem's rounds, compiled once and re-solved for every state.

    Parameters
    ----------
    problem, actions, objective
        What is decided on.
    solver
        Profile: a name, a TOML file or a :class:`Profile`.
    relax
        Name of a constraint that is loosened by its least change when no action exists.
    method
        ``program``: the mixed-integer program; ``search``: the exact search of
        :mod:`rmab_opt.search.branch_and_bound`, for networks; ``prices``: the exact assignment of
        :mod:`rmab_opt.planning.assignment`, for linear objectives under plain budgets; ``listing``: the value of every
        allowed action, one matrix product, for small sets (:attr:`ActionSet.listed`); ``greedy``: one by one by
        the objective's gains, for objectives that offer it, with the bound that diminishing gains prove;
        ``auto``: prices where they apply, else the listing where ``many`` and the set is small, else the search by a
        measured rule (see ``_searches``), else the program. A decision's ``solver`` line says which it was.
    title
        Stands over the printed decision.
    seed
        Of the local search that starts the solver.
    many
        Whether many decisions will follow, so that listing a small set once (a second or two) pays.
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        objective: Objective,
        solver: str | Path | Profile = "default",
        *,
        relax: str | None = None,
        method: str = "auto",
        title: str = "",
        seed: int = 0,
        many: bool = True,
    ) -> None:
        if len(actions.columns.arms) != problem.n_arms:
            raise ModelError(
                f"the action set is over {len(actions.columns.arms)} arms, the problem has {problem.n_arms}",
                "build both from one cohort.",
            )
        if relax is not None and relax not in actions.constraints:
            raise ModelError(f"relax: no constraint {relax!r}", f"name one of {', '.join(actions.constraints)}.")
        if method not in METHODS:
            raise ModelError(f"method is {method!r}", f"use one of {', '.join(METHODS)}.")
        if method == "prices" and not isinstance(objective, LinearObjective):
            raise CapabilityError("assignment by prices", objective, ("use method 'program'", "use scores"))
        if method == "search" and not isinstance(objective, NetworkObjective):
            raise CapabilityError("exact search", objective, ("use method 'program'", "use a network objective"))
        self.method = method
        self.problem, self.actions, self.objective = problem, actions, objective
        self.profile = load_profile(solver)
        self.relax, self.title, self.seed, self.many = relax, title, seed, many
        self.solves = 0
        self._session: Session | None = None
        self._act = np.empty(0, dtype=np.int64)
        self._last: np.ndarray | None = None

    def decide(
        self,
        state: np.ndarray | None = None,
        period: int = 0,
        *,
        start: np.ndarray | None = None,
        force: Sequence[str] = (),
    ) -> Decision:
        """The best allowed action at a state.

        Parameters
        ----------
        state
            int (N,); the problem's first state by default.
        period
            Round counted from 0.
        start
            An allowed action to begin from; otherwise the last decision's and a local search's.
        force
            Ids that must be chosen, on top of the constraints.

        Raises
        ------
        InfeasibleError
            When no action is allowed; names a minimal set of clashing constraints and their least relaxation.
        SolverError
            When a limit left no action at all, or the profile says to raise at a limit, or the solver failed.
        CertificateError
            When the answer does not survive its re-check.
        """
        situation = self._situation(state, period)
        if self.method == "greedy" and not force:
            return self.objective.greedy(self.actions, situation, title=self.title)
        return self._solve(situation, start=start, force=force)

    def batch_decide(self, states: np.ndarray, period: int = 0, *, n_jobs: int | None = None) -> list[Decision]:
        """One decision a state, in order, none of which depends on the others: what a fresh chooser would decide.

        Networks' local search for starts moves all states of a chunk at once; sets, bounds and programs are made
        once a worker. Equally good actions within the profile's gap may differ from those of single decisions.

        Parameters
        ----------
        states
            Shape (M, N).
        period
            Round of all of them.
        n_jobs
            As in :func:`rmab_opt.parallel.pmap`; the decisions do not depend on it.

        Raises
        ------
        TaskLostError
            When a worker process died three times.
        ModelError, InfeasibleError, SolverError, CertificateError
            As :meth:`decide`.
        """
        given = np.asarray(states)
        if given.ndim != 2:
            raise ModelError(f"states have shape {given.shape}", "give one state a row, shape (M, N).")
        chunks = [given[first : first + CHUNK] for first in range(0, len(given), CHUNK)]
        found = dict(pmap(_Worker(self, period), chunks, n_jobs=n_jobs))
        made = [decision for number in range(len(chunks)) for decision in found[number]]
        # What deciding again needs does not travel between processes.
        return [
            decision
            if decision._again is not None
            else replace(decision, _again=partial(self._solve, self._situation(decision.state, period)))
            for decision in made
        ]

    def _decide_chunk(self, states: np.ndarray, period: int) -> list[Decision]:
        """Decisions at states (m, N), none started from another's."""
        situations = [self._situation(state, period) for state in states]
        if self.method == "greedy":
            return [self.objective.greedy(self.actions, situation, title=self.title) for situation in situations]
        kept, made = self._last, []
        try:
            for situation, ready, start in self._started(situations):
                self._last = start
                made.append(self._solve(situation, ready=ready))
        finally:
            self._last = kept
        return made

    def _started(
        self, situations: Sequence[Situation]
    ) -> Iterator[tuple[Situation, _Embedded | None, np.ndarray | None]]:
        """Each situation with its network and an action to begin from, found for all of them by one local search."""
        if (
            not isinstance(self.objective, NetworkObjective)
            or self.relax is not None
            or not self.actions.growable
            or self.method == "listing"
            or (self.method == "auto" and self.many and self.actions.listed is not None)
        ):
            yield from ((situation, None, None) for situation in situations)
            return
        ready = [self._embedded(self.objective, situation) for situation in situations]
        networks = [each.network for each in ready]
        values = np.stack([network(self._samples) for network in networks])
        begun = self._samples[values.argmax(axis=1)]
        # One step to the set's maximiser of the slopes there saves most of the climb, where it is allowed.
        ahead = np.floor(self._support(slopes(networks, begun)).points + WHOLE).astype(np.int64)
        good = np.array([self.actions.allows(action) for action in ahead])
        begun = np.where(good[:, None], ahead, begun)
        ceilings = np.array([each.ceiling for each in ready])
        enough = ceilings - np.maximum(self.profile.absolute_gap, self.profile.relative_gap * np.abs(ceilings))
        starts, _ = climb_all(
            networks,
            begun,
            self.actions.plain_rows.allow,
            self.actions.allows,
            ceilings=enough,
        )
        for situation, each, start in zip(situations, ready, starts, strict=True):
            yield situation, replace(each, climbed=True), start

    @cached_property
    def _samples(self) -> np.ndarray:
        """A few allowed actions that local searches begin from, (3, C)."""
        return self.actions.sample(np.random.default_rng([self.seed, 0x57A127]), 3)

    def forget(self) -> None:
        """Drop what earlier decisions left behind: the compiled program, its basis, the last action."""
        self._session, self._last = None, None

    def __getstate__(self) -> dict[str, Any]:
        # Solvers' objects stay in their process; a copy compiles its own.
        state = {**self.__dict__, "_session": None, "_last": None}
        for name in ("_set", "_support"):
            state.pop(name, None)
        return state

    def _situation(self, state: np.ndarray | None, period: int) -> Situation:
        if state is None:
            assert self.problem.start is not None
            if self.problem.start.ndim != 1:
                raise ModelError("no state given and the start is random", "give the state to decide for.")
            state = self.problem.start
        return Situation(self.problem, self.actions.columns, self.problem.check_state(state), period)

    def _prepare(self, situation: Situation, plain: bool = True) -> Session:
        """The program at a situation: Params changed, or a network's rows put anew behind the set's own.

        ``plain``: nothing is forced or avoided, so that any allowed action's value is reached.
        """
        if isinstance(self.objective, NetworkObjective):
            base, support = self._set
            known = None
            if plain and self.objective.effort == "cutoff":
                last = np.zeros((0, len(self.actions))) if self._last is None else self._last[None]
                points = np.concatenate([self._witnesses, last])
                known = float(self.objective.batch_value(points, situation).max()) if len(points) else None
            program = self.objective.embed(situation, support, known).join(base, self._act)
            if self._session is None:
                self._session = Session.from_arrays(program, self.profile)
            else:
                self._session.load(program)
            return self._session
        if self._session is None or self.objective.outdated(situation):
            self._session = self._compile(situation)
        for name, values in self.objective.update(situation).items():
            self._session.parameters[f"objective_block.{name}"] = values
        return self._session

    @cached_property
    def _set(self) -> tuple[Program, Support]:
        """The set's own program, with ``relax`` loosened, and what bounds come from."""
        model, session = self.actions.compiled
        self._act = np.asarray(session.index(model.act), dtype=np.int64)
        if self.relax is None:
            return session.program, self._support
        rows, lower, upper = self._loosened(model, session)
        program = session.program
        program.row_lower[rows], program.row_upper[rows] = lower, upper
        return program, Support.from_program(program, self._act, names=self.actions.columns.ids)

    def _compile(self, situation: Situation) -> Session:
        model = pyo.ConcreteModel()
        self.actions.build(model)
        model.objective_block = pyo.Block()
        expression = self.objective.build(model.objective_block, model.act, situation)
        model.objective = pyo.Objective(expr=expression, sense=pyo.maximize)
        session = Session(model, self.profile)
        self._act = np.asarray(session.index(model.act), dtype=np.int64)
        if self.relax is not None:
            session.set_rows(*self._loosened(model, session))
        return session

    def _loosened(self, model: Any, session: Session) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the relaxed constraint with their least loosened limits."""
        assert self.relax is not None
        relaxation = self.actions.least_relaxation(self.relax)
        if not relaxation.enough:
            raise self.actions.infeasibility()
        rows = np.asarray(session.rows(model.constraint[self.relax]), dtype=np.int64)
        prefix = f"constraint[{self.relax}]."
        moved = np.array([relaxation.rows.get(session.row_names[row].removeprefix(prefix), 0.0) for row in rows])
        program = session.program
        return rows, program.row_lower[rows] - moved, program.row_upper[rows] + moved

    def _solve(
        self,
        situation: Situation,
        *,
        start: np.ndarray | None = None,
        force: Sequence[str] = (),
        avoid: Sequence[np.ndarray] = (),
        differ: float = 0.2,
        at_least: float | None = None,
        ready: _Embedded | None = None,
    ) -> Any:
        clock = perf_counter()
        plain = not force and not avoid and self.relax is None
        if plain and self.method in ("auto", "prices") and isinstance(self.objective, LinearObjective):
            if start is not None:
                self._allowed_start(start)
            priced = self._by_prices(situation, self.objective)
            if priced is not None:
                return priced
            if self.method == "prices":
                raise CapabilityError(
                    "assignment by prices", self.actions, ("use method 'program'", "declare one budget an action only")
                )
        if plain and self.method == "auto" and self.many and isinstance(self.objective, LinearObjective):
            routed = self._by_routes(situation, self.objective)
            if routed is not None:
                self._last = routed.action
                return routed
        if plain and (self.method == "listing" or (self.method == "auto" and self.many and self.objective.listable)):
            listed = self._by_listing(situation, start)
            if listed is not None:
                self._last = listed.action
                return listed
        if plain and isinstance(self.objective, NetworkObjective):
            if ready is None and self.method in ("auto", "search"):
                ready = self._embedded(self.objective, situation)
            if ready is not None and (self.method == "search" or (self.method == "auto" and self._searches(ready))):
                searched = self._search(situation, ready, start)
                self._last = searched.action
                return searched
        session = self._prepare(situation, plain)
        forced = self._act[self.actions.columns.indices(list(force))]
        extra = np.empty(0, dtype=np.int64)
        if avoid:
            extra = session.add_rows(*self._different(avoid, differ, session.program.matrix.shape[1]))
        session.set_bounds(forced, np.ones(len(forced)), np.ones(len(forced)))
        try:
            incumbent = None if (avoid or force) else self._start(situation, start)
            if incumbent is not None:
                session.start(self._act, incumbent[0])
            result = session.solve()
            self.solves += 1
            if avoid and result.status in ("infeasible", "infeasible_or_unbounded"):
                return None
            decision = self._certify(situation, result, incumbent, perf_counter() - clock, force, plain)
            if decision is None:
                result = self._solve_tightly(session)
                decision = self._certify(situation, result, incumbent, perf_counter() - clock, force, plain, final=True)
        finally:
            session.set_bounds(forced, np.zeros(len(forced)), np.ones(len(forced)))
            if len(extra):
                session.delete_rows(extra)
        assert decision is not None
        if at_least is not None and decision.value < at_least:
            return None
        if not avoid and not force:
            self._last = decision.action
        return decision

    @cached_property
    def _budgets(self) -> tuple[np.ndarray, bool] | None:
        """(limit of each action (A - 1,), used in full) when the constraints are one count an action, nothing else."""
        columns, plain = self.actions.columns, self.actions.plain_rows
        n_arms, n_actions = self.problem.n_arms, self.problem.dynamics.n_actions
        effect = columns.effect
        if self.actions.structured or len(columns) != n_arms * (n_actions - 1) or (np.diff(effect.indptr) != 1).any():
            return None
        if n_actions > 2 and not columns.exclusive:
            return None
        level = np.rint(effect.data).astype(np.int64)
        limits: dict[int, tuple[float, bool]] = {}
        for row in range(plain.matrix.shape[0]):
            entries = slice(plain.matrix.indptr[row], plain.matrix.indptr[row + 1])
            members, lower, upper = plain.matrix.indices[entries], plain.lower[row], plain.upper[row]
            if plain.owner[row] == "one_action":
                continue
            if not len(members) or (plain.matrix.data[entries] != 1.0).any():
                return None
            group = int(level[members[0]])
            whole = len(members) == n_arms and bool((level[members] == group).all())
            equal = bool(lower == upper)
            if not whole or group in limits or not 0 <= upper < np.inf or (not equal and lower > 0):
                return None
            limits[group] = (float(upper), equal)
        if sorted(limits) != list(range(1, n_actions)) or len({equal for _, equal in limits.values()}) != 1:
            return None
        return np.array([limits[k][0] for k in sorted(limits)]), limits[1][1]

    def _by_prices(self, situation: Situation, objective: LinearObjective) -> Decision | None:
        """Decision by price iteration, certified by its dual value; None where it does not apply or does not close."""
        clock = perf_counter()
        if not objective.linear(situation) or self._budgets is None:
            return None
        budgets, equal = self._budgets
        if equal and (budgets != np.floor(budgets)).any():
            return None
        gain, base = objective.coefficients(situation)
        effect = self.actions.columns.effect
        level = np.rint(effect.data).astype(np.int64)
        scores = np.zeros((self.problem.n_arms, self.problem.dynamics.n_actions))
        scores[effect.indices, level] = gain
        try:
            found = assign(scores, budgets, equal=equal)
        except InfeasibleError:
            raise self.actions.infeasibility() from None
        if found.method != "prices" or (equal and budgets.sum() > self.problem.n_arms):
            return None
        self.solves += 1
        action = (found.action[effect.indices] == level).astype(np.int64)
        claim = Claim(action, base + found.value, base + found.bound, 0, True, "prices")
        return self._certified(situation, claim, "price iteration", perf_counter() - clock, final=False)

    def _by_listing(self, situation: Situation, start: np.ndarray | None) -> Decision | None:
        """The best of all allowed actions, each valued; None where there are too many."""
        clock = perf_counter()
        if start is not None:
            self._allowed_start(start)
        actions = self.actions.listed
        if actions is None:
            if self.method == "listing":
                raise CapabilityError(
                    "a list of all allowed actions",
                    self.actions,
                    ("use method 'program'", "declare tighter constraints, or fewer columns"),
                )
            return None
        if not len(actions):
            raise self.actions.infeasibility()
        if isinstance(self.objective, LinearObjective) and self.objective.linear(situation):
            gain, base = self.objective.coefficients(situation)
            values = actions @ gain + base
        else:
            values = self.objective.batch_value(actions, situation)
        best = int(values.argmax())
        self.solves += 1
        value = float(values[best])
        claim = Claim(actions[best].astype(np.int64), value, value, 0, True, "listing")
        return self._certified(situation, claim, f"listing of {len(actions)}", perf_counter() - clock, final=True)

    def _by_routes(self, situation: Situation, objective: LinearObjective) -> Decision | None:
        """The best action within a listed route; None where they are not listed."""
        clock = perf_counter()
        if self.actions.listed is not None or not objective.linear(situation) or self.actions.routes is None:
            return None
        gain, base = objective.coefficients(situation)
        action, value = self.actions.routes.best(gain)
        self.solves += 1
        claim = Claim(action, base + value, base + value, 0, True, "listing")
        solver = f"listing of {len(self.actions.routes.sets)} routes"
        return self._certified(situation, claim, solver, perf_counter() - clock, final=True)

    @cached_property
    def _support(self) -> Support:
        model, session = self.actions.compiled
        return Support.from_program(session.program, session.index(model.act), names=self.actions.columns.ids)

    def _embedded(self, objective: NetworkObjective, situation: Situation) -> _Embedded:
        network = objective.network(situation)
        return _Embedded(network, bounds(network, self._support, "linear"))

    def _searches(self, ready: _Embedded) -> bool:
        """Whether the exact search is the faster way to a proof: a rule as measured, see ``docs/decisions.md``.

        Over disjoint limits and units the search was faster in 144 of 144 recorded decisions, whatever the network.
        Rows that overlap it prices, and weights that must add up to something its maximisers miss: both close small
        gaps slowly, so only networks that bend much go to it there. Constraints whose own variables it cannot read
        go to the program.
        """
        support = self._support
        if len(self.actions.structured) > len(support.assignments):
            return False
        plain = len(support.families) == 1 and all(
            row.counts or (row.lower <= 0 and bool((row.weight > 0).all())) for row in support.rows
        )
        return plain or ready.unstable >= SEARCH_FROM_NEURONS or ready.largest > LARGE_M

    def _search(self, situation: Situation, ready: _Embedded, start: np.ndarray | None) -> Decision:
        clock = perf_counter()
        given = None if start is None else self._allowed_start(start)
        profile = self.profile
        try:
            found = maximise(
                ready.network,
                self._support,
                self.actions.allows,
                self._last if given is None else given,
                gap=profile.relative_gap,
                absolute_gap=profile.absolute_gap,
                seconds=profile.seconds,
                nodes=profile.nodes,
                root=ready.bounds,
                climbed=ready.climbed and given is None,
            )
        except InfeasibleError:
            raise self.actions.infeasibility() from None
        self.solves += 1
        claim = Claim(found.action, found.value, found.bound, found.nodes, found.status == "optimal", "search")
        decision = self._certified(situation, claim, "exact search", perf_counter() - clock, final=True)
        assert decision is not None
        return decision

    def _allowed_start(self, given: np.ndarray) -> np.ndarray:
        given = self.actions.check_action(given)
        broken = self.actions.violations(given)
        if broken and self.relax is None:
            raise ModelError(f"start breaks {', '.join(broken)}", "start from an allowed action.")
        return given

    def _solve_tightly(self, session: Session) -> Result:
        """The same program with the tightest tolerances HiGHS has; once more the same for other solvers."""
        options = dict(self.profile.options)
        if self.profile.solver == "highs":
            # Presolve and tolerances of 1e-9 together cut off optima in HiGHS 1.16; without presolve they do not.
            options |= {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9, "presolve": "off"}
        profile = replace(self.profile, options=options, relative_gap=0.0)
        return Session.from_arrays(session.program, profile).solve()

    def _different(
        self, avoid: Sequence[np.ndarray], differ: float, width: int
    ) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
        """Rows: at least a share ``differ`` of each earlier plan's chosen columns is left out."""
        matrix = np.zeros((len(avoid), width))
        upper = np.empty(len(avoid))
        for row, action in enumerate(avoid):
            matrix[row, self._act[action == 1]] = 1.0
            upper[row] = np.floor((1.0 - differ) * action.sum() + 1e-9)
        return sparse.csr_array(matrix), np.full(len(avoid), -np.inf), upper

    def _start(self, situation: Situation, given: np.ndarray | None) -> tuple[np.ndarray, float] | None:
        """The best allowed action at hand: the given one, the last one, or a grown one, improved where that pays."""
        if given is not None:
            given = self._allowed_start(given)
        at_hand = [action for action in ([given] if given is not None else [self._last]) if action is not None]
        if isinstance(self.objective, NetworkObjective) and self.objective.searchable and self.relax is None:
            if not at_hand and self.actions.growable:
                # Growing needs no solver; other sets leave the start to the solver itself.
                at_hand = list(self._samples)
            if at_hand:
                network = self.objective.network(situation)
                best = max(at_hand, key=lambda action: self.objective.value(action, situation))
                return climb(network, best, self.actions.plain_rows.allow, self.actions.allows)
        return (at_hand[0], self.objective.value(at_hand[0], situation)) if at_hand else None

    def _certify(
        self,
        situation: Situation,
        result: Result,
        incumbent: tuple[np.ndarray, float] | None,
        seconds: float,
        force: Sequence[str],
        plain: bool,
        final: bool = False,
    ) -> Decision | None:
        """The checked decision; None asks for a tighter solve; raises when nothing honest can be returned."""
        self._judge_encoding(situation, [] if incumbent is None else [incumbent[0]])
        if result.status in ("infeasible", "infeasible_or_unbounded"):
            if force:
                raise InfeasibleError(
                    f"no action contains {', '.join(force)} under the constraints",
                    "lock it in and read the explanation.",
                )
            raise self.actions.infeasibility()
        if result.status in ("unbounded", "error", "empty"):
            raise SolverError(f"the solver answered {result.status!r}", "report this with the model file.")
        solver, claimed = self.profile.solver, result.objective
        if result.has_solution and result.x is not None:
            action = np.rint(result.x[self._act]).astype(np.int64)
            value = self.objective.value(action, situation)
        if incumbent is not None and (not result.has_solution or incumbent[1] > value):
            # The solver's best is not better than the start: within its gap, or stopped before it had any.
            action, value = incumbent
            if not result.has_solution:
                claimed, solver = value, f"local search ({self.profile.solver} found nothing in time)"
            else:
                claimed = value if claimed <= value else claimed
        elif not result.has_solution:
            raise SolverError(
                f"no action found before the limit ({result.status})",
                "give the profile more seconds, or loosen the constraints.",
            )
        self._judge_encoding(situation, [action])
        claim = Claim(action, claimed, float(result.bound), int(result.nodes), result.status == "optimal", "dual")
        return self._certified(situation, claim, solver, seconds, final, witnessed=plain)

    @cached_property
    def _witnesses(self) -> np.ndarray:
        """A few allowed actions, whatever the state, that bounds and encodings are held against, (M, C)."""
        if self.relax is not None or not self.actions.growable or not isinstance(self.objective, NetworkObjective):
            return np.zeros((0, len(self.actions)), dtype=np.int64)
        return self.actions.sample(np.random.default_rng([self.seed, 0x3172E55]), WITNESSES)

    def _judge_encoding(self, situation: Situation, actions: list[np.ndarray]) -> None:
        """Raise when the program leaves an allowed action out, or gives it another value than the objective does."""
        allowed = [action for action in actions if self.relax is not None or self.actions.allows(action)]
        points = np.concatenate([self._witnesses, np.array(allowed).reshape(-1, len(self.actions))])
        faults = self.objective.faults(points, situation) if len(points) else []
        if faults:
            raise CertificateError(
                f"the program is not the network: {faults[0]}"
                + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""),
                "report this with the model file and the network; another `formulation` or `effort` may be right.",
            )

    def _certified(
        self, situation: Situation, claim: Claim, solver: str, seconds: float, final: bool, witnessed: bool = True
    ) -> Decision | None:
        """The decision when constraints, value and bound survive the re-check; None or an error otherwise.

        ``witnessed``: no allowed action may be worth more than the bound; a few are looked at.
        """
        action, claimed = claim.action, claim.value
        value = self.objective.value(action, situation)
        best = value
        if witnessed and len(self._witnesses):
            best = max(best, float(self.objective.batch_value(self._witnesses, situation).max()))
        violations = self.actions.violations(action)
        error = abs(claimed - value)
        bound = np.inf if np.isnan(claim.bound) else min(claim.bound, self.objective.ceiling(situation))
        tolerance = VALUE_TOLERANCE * (1.0 + abs(value))
        unexpected = {name: said for name, said in violations.items() if name != self.relax}
        if unexpected or error > tolerance or best > bound + tolerance:
            if not final:
                return None
            raise CertificateError(
                "the solver's answer did not survive its re-check: "
                + (
                    f"it breaks {unexpected}"
                    if unexpected
                    else f"claimed {claimed:.8g}, re-computed {value:.8g}, bound {bound:.8g}"
                    + (f", another allowed action {best:.8g}" if best > value else "")
                ),
                "scale the network's weights or loosen its bounds; report this with the model file.",
            )
        optimal = claim.optimal and bool(np.isfinite(bound))
        if not optimal and self.profile.at_limit == "raise":
            raise SolverError(
                f"stopped at a limit with value {value:.6g} and bound {bound:.6g}",
                "give more seconds, or use a profile with at_limit = 'best_with_gap'.",
            )
        return Decision(
            ids=self.actions.columns.ids,
            action=action,
            state=situation.state.copy(),
            value=value,
            bound=max(bound, value),
            bound_kind=claim.kind if np.isfinite(bound) else "none",
            encoding_error=error,
            violations=violations,
            status="optimal" if optimal else "limit",
            solver=f"{solver} · profile {self.profile.name}",
            seconds=seconds,
            assignment=self.actions.assignment(action),
            tight=self.actions.tight(action),
            relaxed=self.relax if violations else None,
            nodes=claim.nodes,
            period=situation.period,
            title=self.title,
            notes=self.objective.remarks(action, situation),
            _again=lambda **change: self._solve(situation, **change),
        )


class _Worker:
    """Decides chunks of states; in another process with the chooser that it kept from the call's first chunk."""

    def __init__(self, chooser: Chooser, period: int) -> None:
        self.chooser, self.period, self.call, self.away = chooser, period, uuid4().hex, False

    def __call__(self, states: np.ndarray) -> list[Decision]:
        made = self.chooser._decide_chunk(states, self.period)
        return [replace(decision, _again=None) for decision in made] if self.away else made

    def __reduce__(self) -> tuple[Any, ...]:
        return _away, (self.chooser, self.period, self.call)


_AT_WORK: dict[str, Chooser] = {}
"""The chooser that this worker process decides with, by call of ``batch_decide``; one at a time."""


def _away(chooser: Chooser, period: int, call: str) -> _Worker:
    if call not in _AT_WORK:
        _AT_WORK.clear()
        _AT_WORK[call] = chooser
    worker = _Worker(_AT_WORK[call], period)
    worker.away = True
    return worker


def decide(
    model: Model,
    state: np.ndarray | str | Path | Table | None = None,
    *,
    objective: Objective | None = None,
    solver: str | Path | Profile | None = None,
    period: int = 0,
    start: np.ndarray | None = None,
    relax: str | None = None,
    method: str = "auto",
) -> Decision:
    """Best allowed action of a model at one state, with its certificate.

    Parameters
    ----------
    model
        From :func:`rmab_opt.load`, or ``Model(problem, actions, objective)``.
    state
        int (N,), a CSV file with columns ``id`` and ``state``, or the model's own start by default.
    objective, solver
        In place of the model's own.
    period, start, relax, method
        See :class:`Chooser`.

    Raises
    ------
    ModelError, InfeasibleError, SolverError, CertificateError
        See :meth:`Chooser.decide`.
    """
    chooser = Chooser(
        model.problem,
        model.actions,
        model.objective if objective is None else objective,
        model.solver if solver is None else solver,
        relax=relax,
        method=method,
        title=model.title,
        many=False,
    )
    return chooser.decide(model.state(state), period, start=start)
