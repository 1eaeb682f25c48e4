"""A programme's folder as a planner works on it: this week's list, locks, moves, questions, the proof, outcomes.

A desk keeps nothing that is not in the folder: what it remembers are answers that it would give again. So two windows,
a reload, a crash or the command line beside it lose nothing.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import LockedIn, LockedOut, Scheduling
from rmab_opt.catalog import copy_model, load
from rmab_opt.catalog.yaml_text import read_yaml
from rmab_opt.decisions import Decision, Model, verify
from rmab_opt.decisions.objective import LinearObjective
from rmab_opt.decisions.saved import Verification
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.learning.run_folder import RunFolder
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.programme.asked import Asked, Draft, read_draft, write_draft
from rmab_opt.programme.columns import Columns, read_columns, week_file, week_label
from rmab_opt.programme.comparison import altered
from rmab_opt.programme.folder import (
    PATIENCE,
    STAGE,
    TOLD,
    WHOLE,
    alone,
    finish,
    model_text,
    next_week,
    read_members,
    read_standing,
    shown_of,
    stage_in,
    sure_again,
    write_list,
)
from rmab_opt.programme.front_door import IN, OUT, ahead_of, choose_rule, plan_decision, saved_document, saved_objective
from rmab_opt.programme.ledger import Ledger
from rmab_opt.records import held, json_text, read_object, write_atomically
from rmab_opt.solver import Progress

__all__ = ["Desk", "Place", "Price", "Reason", "begin_desk"]

ROW = re.compile(r"constraint\[(?P<limit>[^\]]*)\](?:\.\w+)?(?:\[(?P<key>.*)\])?", re.DOTALL)
"""How a row of a program is called: the constraint, a part of it, what the row is about."""

MOST_RUNS = 8
"""Learning curves of one picture."""

FIX = "take the file back from a copy."


@dataclass(frozen=True)
class Place:
    """One shift that a visit could be in, and what that costs of the week's value."""

    worker: str
    slot: str
    cost: float | None
    """Value lost; None where no list is possible with it."""
    displaced: tuple[str, ...] = ()
    here: bool = False
    """Whether the visit is there now."""


@dataclass(frozen=True)
class Price:
    """A limit that the list uses up, with what one more unit of it is worth this week."""

    limit: str
    row: str
    """What of it, e.g. a slot and who may be served in it; empty for its only row."""
    amount: float
    price: float | None
    """Added by one more unit at most, by the certificate's prices; None where the proof has none."""
    least: bool = False
    """Whether it is a least amount: then one less is worth so much."""


@dataclass(frozen=True)
class Reason:
    """Why somebody is on the list, or is not."""

    name: str
    chosen: bool
    gain: float | None
    """What acting on them adds to the objective; None where it is not a sum over people."""
    rank: int
    last: float | None
    """The least gain on the list."""
    said: str
    """What the other choice costs, and who would come or go."""


def begin_desk(name: str | Path, out: Path | None = None) -> Path:
    """A folder to work in: a programme's own, or a new one with a copy of a model and its first list.

    Raises
    ------
    ModelError
        When there is no such model, or the new folder holds something else.
    """
    folder = Path(name)
    if (folder / "standing.json").is_file():
        return folder
    home = Path(f"{folder.stem}-weeks") if out is None else out
    if (home / "standing.json").is_file():
        return home
    copy_model(str(name), home)
    state = {"week": 1, "period": 0, "paused": {}}
    write_atomically(home / "standing.json", json_text(state) + "\n")
    return home


class Desk:
    """What can be seen of a week and done to it; every method reads the folder as it is then.

    Parameters
    ----------
    folder
        Of :func:`begin_desk`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[str, tuple[Any, Any]] = {}

    # ---------------------------------------------------------------------------------------------------- what is there
    @property
    def is_programme(self) -> bool:
        """Whether it was made from sheets: then outcomes lead to a new estimate, and members may come and go."""
        return (self.folder / "columns.yaml").is_file()

    @property
    def week(self) -> int:
        """Number of the week whose list is on the desk."""
        return int(read_standing(self.folder)["week"])

    @property
    def label(self) -> str:
        """The week as people write it."""
        return week_label(self.week)

    @property
    def period(self) -> int:
        return int(read_standing(self.folder)["period"])

    def path(self, week: int | None = None, suffix: str = ".json") -> Path:
        """A file of a week's list."""
        return self.folder / "weeks" / f"{week_file(self.week if week is None else week)}{suffix}"

    def settle(self) -> None:
        """Bring a whole new week into place that a crash has left, and make the first list where there is none."""
        finish(self.folder)
        if not self.path().is_file():
            self.redecide(Asked())

    def _once(self, what: str, paths: list[Path], make: Callable[[], Any]) -> Any:
        """What was made from files that have not changed since."""
        stamp = [(path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None for path in paths]
        kept = self._kept.get(what)
        if kept is None or kept[0] != stamp:
            self._kept[what] = kept = (stamp, make())
        return kept[1]

    def columns(self) -> Columns | None:
        """Which column means what; None without sheets."""
        path = self.folder / "columns.yaml"
        return self._once("columns", [path], lambda: read_columns(path)) if self.is_programme else None

    def members(self) -> dict[str, dict[str, str]]:
        """Cells by id: of the cohort as the programme knows it, or of the model's table of arms."""
        columns = self.columns()
        if columns is not None:
            path = self.folder / "names.csv"
            found = self._once("members", [path], lambda: read_members(self.folder, columns))
        else:
            found = self._once("members", [self.folder / "model.yaml"], self._arms)
        return dict(found)

    def _arms(self) -> dict[str, dict[str, str]]:
        arms = self.model().problem.arms
        cells = {name: arms.text(name) for name in arms.table.columns if name != "id"}
        return {one: {name: column[row] for name, column in cells.items()} for row, one in enumerate(arms.ids)}

    def shown(self) -> Callable[[str], Mapping[str, str]]:
        """The cells that stand beside an id on the list."""
        columns, members = self.columns(), self.members()
        if columns is not None:
            return shown_of(members, columns.register_)
        return lambda name: {key: cell for key, cell in members.get(name, {}).items() if key not in ("slots", "group")}

    def rows(self, week: int | None = None) -> list[dict[str, str]]:
        """The list of a week as it was written, a row a visit."""
        path = self.path(week, ".csv")
        if not path.is_file():
            return []

        def read() -> list[dict[str, str]]:
            table = Table.read(path)
            names = [name for name in table.columns if name not in ("done", "state")]
            cells = {name: table.text(name) for name in names}
            return [{name: cells[name][row] for name in names} for row in range(len(table))]

        return list(self._once(f"rows {path.name}", [path], read))

    def document(self, week: int | None = None) -> dict[str, Any]:
        """The saved decision of a week."""
        path = self.path(week)
        return dict(self._once(f"saved {path.name}", [path], lambda: read_object(path, "saved decision", FIX)))

    def told(self) -> dict[str, Any]:
        """Rule, outlook and what was assumed of the newest list."""
        path = self.folder / TOLD
        return read_object(path, "what was said of a list", FIX) if path.is_file() else {}

    def draft(self) -> Draft:
        """Locks, moved visits, ticks and events of the week, not recorded yet."""
        return read_draft(self.folder, self.week)

    def note(self, change: Callable[[Draft], Draft]) -> Draft:
        """Change what is noted; one at a time, so that two windows do not write over each other."""
        with self._noting():
            draft = change(self.draft())
            write_draft(self.folder, draft)
        return draft

    def _noting(self) -> AbstractContextManager[None]:
        """Hold what is noted, for a moment: the folder itself is held for as long as a list is made."""
        return held(self.folder / "weeks", "notes", wait=PATIENCE)

    def ledger(self) -> Ledger:
        """What was recorded."""
        paths = [self.folder / "model.yaml", *sorted((self.folder / "ledger").glob("*.json"))]
        found: Ledger = self._once(
            "ledger", paths, lambda: Ledger(self.folder / "ledger", self._declared(), keep=self._keep())
        )
        return found

    def _keep(self) -> tuple[str, ...]:
        columns = self.columns()
        return () if columns is None else ("group", *columns.register_.keep)

    def _declared(self) -> Model:
        """This week's model before anything recorded is counted."""
        paths = [self.folder / "model.yaml", *sorted(self.folder.glob("*.csv"))]
        found: Model = self._once("declared", paths, lambda: load(self.folder))
        return found

    def model(self) -> Model:
        """This week's model, locks and moved visits included, with what the weeks recorded count towards guarantees."""
        paths = [self.folder / "model.yaml", *sorted(self.folder.glob("*.csv"))]
        paths += sorted((self.folder / "ledger").glob("*.json"))
        found: Model = self._once("model", paths, lambda: Ledger(self.folder / "ledger", self._declared()).model)
        return found

    # ------------------------------------------------------------------------------------------------------- deciding
    def _standing(self, model: Model) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """State, beliefs where some are not certain, and shared values to decide from."""
        standing = Ledger(self.folder / "ledger", model, keep=self._keep()).standing()
        start = model.problem.start
        if standing is None and not self.is_programme and model.instance is not None and start is not None:
            state = start if start.ndim == 1 else model.problem.sample_start(np.random.default_rng(0))
            return np.asarray(state), None, model.shared()
        belief = model.problem.start_distribution if standing is None else standing.belief
        shared = model.shared(None, None if standing is None else standing.shared or None)
        return belief.argmax(axis=1), belief, shared

    def _decide(self, model: Model, asked: Asked, watch: Progress | None = None) -> tuple[Decision, dict[str, Any]]:
        state, belief, shared = self._standing(model)
        plan = choose_rule(model, self.period)
        title = f"{self.folder.name} · week {week_label(self.week)}"
        made, plan = plan_decision(
            model, plan, state, self.period, belief=belief, shared=shared, title=title, relax=asked.relax, watch=watch
        )
        return made, saved_document(model, made, plan, belief)

    def live(self) -> Decision:
        """This week's decision made again from its question, so that it can be asked."""
        paths = [self.folder / "model.yaml", self.path()]
        asked = self.draft().asked
        return self._once("live", paths, lambda: self._decide(self.model(), asked)[0])  # type: ignore[no-any-return]

    def redecide(self, asked: Asked, watch: Progress | None = None) -> Decision:
        """Make this week's list again under what is asked; written as a whole or not at all.

        Raises
        ------
        InfeasibleError
            When no list is possible so; names the clash and the least relaxation of each constraint.
        ModelError
            When what is asked names nobody, or another command works on the folder.
        """
        with alone(self.folder, "makes the list again"):
            week = self.week
            stage = stage_in(self.folder)
            copied = [path for path in self.folder.iterdir() if path.is_file() and path.suffix in (".csv", ".json")]
            for path in copied:
                shutil.copy2(path, stage / path.name)
            content, _ = read_yaml(self.folder / "model.yaml")
            changed = asked.applied(content, stage)
            write_atomically(stage / "model.yaml", model_text(changed))
            model = Ledger(self.folder / "ledger", load(stage)).model
            made, document = self._decide(model, asked, watch)
            for path in copied:
                # Only what is new goes into place: nothing that somebody has changed meanwhile.
                if (stage / path.name).stat().st_mtime_ns == path.stat().st_mtime_ns:
                    (stage / path.name).unlink()
            write_atomically(stage / "weeks" / f"{week_file(week)}.json", json_text(document) + "\n")
            kept = {name: share for name, share in self.sure().items() if name in made.chosen}
            write_list(stage, week, made, self.shown() if self.path().is_file() else self._shown_of(model), kept)
            with self._noting():
                # What was ticked while the list was made stays.
                write_draft(stage, self.draft().model_copy(update={"asked": asked}))
                write_atomically(stage / WHOLE, "")
                finish(self.folder)
        self._kept["live"] = ([self._stamp(self.folder / "model.yaml"), self._stamp(self.path())], made)
        return made

    def sure(self) -> dict[str, float]:
        """Share of the draws of the estimate in which each of the list is on it, as the list says; locks have none."""
        locked = set(self.draft().asked.into)
        cells = {row["id"]: row.get("sure", "").partition(" ")[0] for row in self.rows()}
        return {name: int(cell) / 100 for name, cell in cells.items() if cell.isdecimal() and name not in locked}

    def resure(self) -> bool:
        """Hold the list against the draws of the estimate again, after a change; whether it was written down.

        It takes as long as making a first list, and gives way: a list that was made again meanwhile stays as it is.
        """
        if not self.is_programme or not self.sure():
            return False
        stamp, week, draft = self._stamp(self.path()), self.week, self.draft()
        model = load(self.folder)
        state, belief, shared = self._standing(model)
        made = self._decide(model, draft.asked)[0]
        if list(made.chosen) != self.document(week)["action"]:
            # A list that was stopped early is not found again.
            return False
        plan = choose_rule(model, self.period)
        found = sure_again(self.folder, model, plan, made, (state if belief is None else belief, self.period, shared))
        if found is None:
            return False
        with alone(self.folder, "says how sure the list is"):
            if self.week != week or self._stamp(self.path()) != stamp:
                return False
            stage = stage_in(self.folder)
            share = {name: one for name, one in found.share.items() if name not in draft.asked.into}
            write_list(stage, week, made, self.shown(), share)
            write_atomically(stage / WHOLE, "")
            finish(self.folder)
        return True

    def _shown_of(self, model: Model) -> Callable[[str], Mapping[str, str]]:
        self._kept["model"] = ([], model)
        return self.shown()

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        return path.stat().st_mtime_ns, path.stat().st_size

    # ------------------------------------------------------------------------------------------------------ questions
    def why(self, name: str) -> Reason:
        """Why somebody is on the list or not, and what the other choice costs.

        Raises
        ------
        ModelError
            When nobody has that id.
        """
        made, actions = self.live(), self.model().actions
        if name not in actions.columns:
            raise ModelError(f"nobody has the id {name!r}", nearest(name, list(actions.columns.ids)))
        question, chosen = made.question, name in made.chosen
        gain, rank, last = None, 0, None
        objective = question.objective
        if isinstance(objective, LinearObjective) and objective.linear(question.situation):
            gains, _ = objective.coefficients(question.situation)
            gain = float(gains[actions.columns.index(name)])
            rank = int((gains > gain + 1e-12).sum()) + 1
            taken = gains[np.asarray(made.action, dtype=bool)]
            last = float(taken.min()) if taken.size else None
        try:
            said = self._without(name) if chosen else made.why_not(name)
        except InfeasibleError:
            said = self._clash(name, IN if not chosen else OUT)
        return Reason(name, chosen, gain, rank, last, said)

    def _without(self, name: str) -> str:
        """What leaving somebody out costs, and who would come."""
        made, actions = self.live(), self.model().actions
        other = made.under(ActionSet(actions.columns, _locked(actions, OUT, name)))
        into = [one for one in other.chosen if one not in made.chosen]
        out = [one for one in made.chosen if one not in other.chosen and one != name]
        text = f"Without {name} the list is worth {max(0.0, made.value - other.value):.4g} less of {made.value:.4g}"
        text += f"; {', '.join(into)} would come" if into else "; nobody would come instead"
        return text + (f" and {', '.join(out)} go." if out else ".")

    def prices(self) -> list[Price]:
        """Limits that this week's list uses up, shifts of the roster too, the dearest first."""
        found: list[Price] = self._once("prices", [self.folder / "model.yaml", self.path()], self._prices)
        return list(found)

    def _prices(self) -> list[Price]:
        made = self.live()
        question, actions, prices = made.question, made.question.actions, made.proof.prices
        linear = isinstance(question.objective, LinearObjective) and question.objective.linear(question.situation)
        if prices is None or not linear or made.proof.kind not in ("prices", "table"):
            return [Price(name, row, np.nan, None) for name, rows in made.tight.items() for row in rows]
        names, low, high, unit = _limits(actions)
        # An equation says what a choice is, and limits nothing that could be had more of.
        at = np.flatnonzero((prices != 0) & (low != high))
        found = []
        for row in at[np.argsort(-np.abs(prices[at] / unit[at]), kind="stable")].tolist():
            least = bool(prices[row] < 0)
            amount = float((low[row] if least else high[row]) * unit[row])
            name = names[row]
            if name is not None and np.isfinite(amount):
                price = abs(float(prices[row] / unit[row])) * made.unit
                found.append(Price(name[0], name[1], amount, price, least))
        return found

    def learning(self) -> dict[str, list[tuple[float, float]]]:
        """Learning curves of the runs in the folder, by the run's name: episode and what it earned."""
        found = {}
        for log in sorted([*self.folder.glob("log.jsonl"), *self.folder.glob("runs/**/log.jsonl")])[:MOST_RUNS]:
            rows = self._once(f"run {log}", [log], RunFolder(log.parent).read_log)
            points = [
                (float(k), float(row["reward"]))
                for k, row in enumerate(rows, start=1)
                if isinstance(row.get("reward"), int | float)
            ]
            if points:
                found[log.parent.relative_to(self.folder.parent).as_posix()] = points
        return found

    def _clash(self, name: str, lock: str) -> str:
        """Why no list is possible with a further lock, in words."""
        actions = self.model().actions
        conflict = ActionSet(actions.columns, _locked(actions, lock, name)).at(self.period).explain()
        return "No list is possible so." if conflict is None else conflict.error().message

    def places(self, name: str) -> list[Place]:
        """The shifts that somebody's visit could be in, the cheapest first; empty where the model has no roster."""
        made, actions = self.live(), self.model().actions
        found = next(((key, one) for key, one in actions.declared.items() if isinstance(one, Scheduling)), None)
        if found is None or found[1].visits != 1:
            return []
        key, roster = found
        now = {(row["worker"], row["slot"]) for row in made.assignment if row["column"] == name}
        rows: dict[str, list[str]] = {"id": [], "worker": [], "slot": []}
        if roster.placed is not None:
            rows = {part: list(roster.placed.text(part)) for part in rows}
        others = [k for k, one in enumerate(rows["id"]) if one != name]
        plain = roster.model_copy(update={"placed": None})
        free = ActionSet(actions.columns, {**actions.declared, key: _fresh(plain)})
        offered = free.declared[key]
        assert isinstance(offered, Scheduling)
        open_to = offered.open_to(free.columns)[free.columns.index(name)]
        places: list[Place] = []
        # Workers of one pool can be exchanged in a slot: one answer serves them all, but for those others are moved to.
        groups = [""] * len(open_to) if roster.match is None else offered.roster.text(roster.match)
        taken, known = {(rows["worker"][i], rows["slot"][i]) for i in others}, dict[Any, Place]()
        for k, (worker, slot, calls) in enumerate(offered.shifts_of(free.columns)):
            if not open_to[k] or not calls:
                continue
            pool = (slot, groups[k], worker if (worker, slot) in taken else "")
            if pool in known:
                places.append(replace(known[pool], worker=worker, here=(worker, slot) in now))
                continue
            cells = zip(rows, (name, worker, slot), strict=True)
            table = Table({part: [*(rows[part][i] for i in others), cell] for part, cell in cells}, source="moved")
            declared = {**_locked(actions, IN, name), key: _fresh(plain, placed=table)}
            try:
                other = made.under(ActionSet(actions.columns, declared))
            except InfeasibleError:
                known[pool] = Place(worker, slot, None)
                places.append(known[pool])
                continue
            out = tuple(one for one in made.chosen if one not in other.chosen)
            known[pool] = Place(worker, slot, max(0.0, made.value - other.value), out, (worker, slot) in now)
            places.append(known[pool])
        return sorted(places, key=lambda one: (one.cost is None, not one.here, round(one.cost or 0.0, 9), one.slot))

    def what_if(self, change: str) -> Decision:
        """This week's list by the same gains under another limit or roster, as ``compare`` writes changes.

        Raises
        ------
        InfeasibleError
            When no list is possible so.
        """
        return self.live().under(altered(self.model(), change).actions)

    def worth(self, change: str) -> float | None:
        """Value of this week's list under a change; None where no list is possible so."""

        def found() -> float | None:
            with contextlib.suppress(InfeasibleError):
                return self.what_if(change).value
            return None

        return self._once(f"worth {change}", [self.folder / "model.yaml", self.path()], found)  # type: ignore[no-any-return]

    def verdict(self) -> Verification:
        """The saved decision, re-checked without a solver."""
        model, saved = self.model(), self.path()
        relax = self.draft().asked.relax
        return verify(saved, model.problem, model.actions, saved_objective(model, saved), relax=relax)

    def outlook(self) -> dict[str, Any]:
        """What lies ahead with this list's rule: expected total, bound, what one more unit is worth."""
        return dict(self._once("outlook", [self.folder / "model.yaml", self.path()], self._ahead))

    def _ahead(self) -> dict[str, Any]:
        model = self.model()
        state, belief, shared = self._standing(model)
        plan = choose_rule(model, self.period)
        seen = ahead_of(model, plan, state if belief is None else belief, self.period, shared=shared)
        return {} if seen is None else seen.outlook(2).summary()

    # ------------------------------------------------------------------------------------------------------ recording
    def record(self, outcomes: Path, register: Path | None = None) -> list[str]:
        """Record the week and make the next list; what was said of it.

        Raises
        ------
        ModelError
            Naming every row and column that cannot be taken; then nothing is recorded.
        """
        if self.is_programme:
            return next_week(self.folder, outcomes, register).said
        if register is not None:
            raise ModelError("a model's cohort does not change", "begin a programme with `rmab-opt start`.")
        with alone(self.folder, "records a week"):
            standing = read_standing(self.folder)
            self.ledger().record(self.document(), Table.read(outcomes, needed=["id"]))
            after = {**standing, "week": standing["week"] + 1, "period": standing["period"] + 1}
            if after["period"] >= self.model().problem.horizon:
                raise ModelError("this was the last round of the model's horizon", "set problem.horizon in model.yaml.")
            write_atomically(self.folder / "standing.json", json_text(after) + "\n")
        self.redecide(Asked())
        return []

    def changes(self) -> list[tuple[str, str, str]]:
        """Who comes and who goes against last week's list: (id, ``comes`` or ``goes``, why, in words)."""
        if not self.path(self.week - 1).is_file():
            return []
        before, now = self.document(self.week - 1), self.document()
        last, here = set(before["action"]), set(now["action"])
        members, names = self.members(), self.model().problem.state_names
        then = dict(zip(before["ids"], before["state"], strict=True))
        state = dict(zip(now["ids"], now["state"], strict=True))
        asked, rounds = self.draft().asked, self.ledger().rounds
        done = set(rounds[-1]["done"]) if rounds else set()
        paused = read_standing(self.folder)["paused"]
        found = []
        for name in sorted(here ^ last):
            comes = name in here
            found.append((name, "comes" if comes else "goes", _because(name, comes, {
                "locked in": name in asked.into,
                "locked out": name in asked.out,
                "joined": name not in then,
                "left": name not in members,
                "paused": name in paused,
                "called": name in done,
                "missed": name in last and name not in done and bool(rounds),
            }, tuple(names[k] if k is not None else "" for k in (then.get(name), state.get(name))))))  # fmt: skip
        return found


def _because(name: str, comes: bool, facts: Mapping[str, bool], states: tuple[str, ...]) -> str:
    """The nearest reason for a change of the list, from what is recorded; prices move too, and are named last."""
    order = ("locked in", "joined") if comes else ("locked out", "left", "paused")
    for fact in order:
        if facts[fact]:
            return fact
    if states[0] != states[1] and all(states):
        return f"was {states[0]}, now {states[1]}" + (" after a call" if facts["called"] and not comes else "")
    if not comes and facts["called"]:
        return f"was called, is {states[1]}; others gain more now" if states[1] else "was called; others gain more now"
    return "gains more than others now" if comes else "others gain more now"


def _limits(
    actions: ActionSet,
) -> tuple[list[tuple[str, str] | None], np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows that proofs have prices of: (limit, what of it), least, most, what they were divided by."""
    if actions.outer is not None or not actions.structured:
        plain = actions.outer or actions.plain_rows
        unit = np.ones(len(plain.lower)) if plain.unit is None else plain.unit
        return list(zip(plain.owner, plain.key, strict=True)), plain.lower, plain.upper, unit
    model, session = actions.compiled
    unit = np.ones(len(session.program.row_lower))
    for name in actions.constraints:
        rows = np.asarray(session.rows(model.constraint[name]), dtype=np.int64)
        unit[rows] = actions.units_of(name, model, session, rows)
    names: list[tuple[str, str] | None] = []
    for text in session.row_names:
        found = ROW.fullmatch(text)
        key = "" if found is None else (found["key"] or "").strip("'\"")
        names.append(None if found is None else (found["limit"].strip("'\""), "" if key == "all" else key))
    return names, session.program.row_lower, session.program.row_upper, unit


def _locked(actions: ActionSet, lock: str, name: str) -> dict[str, Any]:
    """The constraints with one more lock of this week."""
    other = actions.declared.get(lock)
    ids = (*(other.ids if isinstance(other, LockedIn | LockedOut) else ()), name)
    return {**actions.declared, lock: (LockedIn if lock == IN else LockedOut)(ids=ids)}


def _fresh(roster: Scheduling, **changes: Any) -> Scheduling:
    """A roster of its own, linked to no set."""
    fields = {name: getattr(roster, name) for name in type(roster).model_fields}
    return type(roster).model_validate(fields | {"placed": None} | changes)


def half_made(folder: Path) -> bool:
    """Whether a command was killed while it made a week."""
    with contextlib.suppress(OSError):
        return (folder / STAGE).is_dir() and not (folder / STAGE / WHOLE).is_file()
    return False
