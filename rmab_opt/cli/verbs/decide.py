"""``rmab-opt decide``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmab_opt.cli.common import (
    STOPPED,
    THIS_WEEK,
    Force,
    GroupColumn,
    Json,
    LedgerFolder,
    ModelName,
    Seconds,
    Sets,
    SolverName,
    StateFile,
    answer,
    brought,
    check_outputs,
    has_tables,
    in_programme,
    load_model,
    stoppable,
)
from rmab_opt.errors import ModelError, OverdueError
from rmab_opt.registry import register

if TYPE_CHECKING:
    import numpy as np

    from rmab_opt.decisions import Decision, Model
    from rmab_opt.programme.front_door import Ahead
    from rmab_opt.programme.ledger import Standing

OUTLOOK_SHARE = 0.3
"""With --seconds, runs to the horizon follow a decision that took no more than this share of them."""

OUTLOOK_UNTIL = 0.9
"""Share of --seconds after which no further round is run."""

Period = Annotated[int, typer.Option(help="Round, counted from 0.")]
NewLedger = Annotated[bool, typer.Option("--new", help="The --ledger is not there yet: this is its first round.")]
Relax = Annotated[str | None, typer.Option(metavar="NAME", help="Loosen this constraint by its least change.")]
RunFolder = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Decide by the network of this run.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of a random first state, when no --state is given.")]
Out = Annotated[Path | None, typer.Option(help="Write the list: .csv, .xlsx or .json.")]
Report = Annotated[
    Path | None, typer.Option(metavar="HTML", help="Write one page to read and print: a list by worker and slot.")
]
WhyNot = Annotated[list[str] | None, typer.Option("--why-not", metavar="ID", help="What choosing ID would cost.")]
Alternatives = Annotated[int, typer.Option(min=0, max=10_000, help="Other plans within 1 % to print.")]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", metavar="NAME", help="Decide by this policy (`rmab-opt policies`), or `immediate`."),
]
Method = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", help="auto, program, search, prices, packing, listing or greedy."),
]
Episodes = Annotated[int, typer.Option(min=0, help="Simulated runs behind the expected total to the horizon; 0: none.")]


@register("verb", "decide", group=THIS_WEEK)
def decide(
    model: ModelName,
    state: StateFile = None,
    solver: SolverName = None,
    seconds: Seconds = None,
    sets: Sets = None,
    period: Period = 0,
    ledger: LedgerFolder = None,
    relax: Relax = None,
    run: RunFolder = None,
    policy: PolicyName = None,
    method: Method = None,
    episodes: Episodes = 4,
    seed: Seed = 0,
    out: Out = None,
    report: Report = None,
    why_not: WhyNot = None,
    alternatives: Alternatives = 0,
    groups: GroupColumn = None,
    force: Force = False,
    new: NewLedger = False,
    as_json: Json = False,
) -> None:
    """Choose this round's action and prove how good it is."""
    began = perf_counter()
    from rmab_opt.programme.front_door import ahead_of, choose_rule, plan_decision, saved_document

    loaded = load_model(model, sets)
    # Fair plans need tables of the arms; without them groups are told what the round brings.
    told_by = "decision_groups" if has_tables(loaded) else "round_groups"
    grouped = None if groups is None else brought("report", told_by, "equity", "--groups")
    if run is not None:
        loaded = _decided_by_run(loaded, run, policy)
    _check_formats(out, report)
    check_outputs(loaded, out, report, also=[state])
    if ledger is not None and not new and not ledger.exists():
        raise ModelError(f"{ledger}: there is no ledger", "check the name, or begin one there with --new.")
    if in_programme(model) and state is None and not period and ledger is None and not new:
        # A programme's folder keeps its own rounds; before the first there are none.
        own = Path(model) / "ledger"
        ledger = own if own.exists() else None
    loaded, given, period, standing = _start(loaded, state, period, ledger)
    given, belief = _believed(loaded, given, standing, seed)
    shared = loaded.shared(state, None if standing is None else standing.shared or None)
    plan = choose_rule(loaded, period, policy)
    title = f"{loaded.title}{f' · {state.stem}' if state is not None else ''}"
    deadline = None if seconds is None else began + seconds
    asked = partial(
        plan_decision, loaded, plan, given, period, belief=belief, shared=shared, solver=solver, relax=relax,
        title=title, method=method,
    )  # fmt: skip
    (decision, plan), stopped = stoppable(asked, deadline)
    if stopped:
        seconds, episodes, began = STOPPED, 0, perf_counter()
    seen = decision.state if belief is None else belief
    late = seconds is not None and perf_counter() - began > OUTLOOK_SHARE * seconds
    until = math.inf if seconds is None else began + OUTLOOK_UNTIL * seconds
    lying = None if late or not episodes else ahead_of(loaded, plan, seen, period, shared=shared, until=until)
    lines, horizon = _horizon(model, lying, episodes, until)
    late = late or (not lines and (lying is not None or perf_counter() > until))
    lines |= {"expected": f"not simulated: {seconds:g} s are the limit"} if late else {}
    lines |= {"stopped": "by Ctrl-C; the best that was at hand is above"} if stopped else {}
    if out is not None:
        _write(decision, saved_document(loaded, decision, plan, belief), out)
    document = decision.summary() | {"rule": {"policy": plan.policy or "declared", "reason": plan.reason}} | horizon
    text = _told(decision, {"rule": str(plan), **lines}) + _asked(loaded, decision, why_not or [], alternatives)
    if standing is not None:
        document["ledger"] = {"round": standing.period + 1, "estimated": standing.estimated}
        text += f"\nfrom the ledger: {standing}"
    parts: list[Any] = []
    if grouped is not None:
        left = None if seconds is None else max(0.0, began + seconds - perf_counter())
        told = grouped(loaded, decision, groups, seconds=left)
        document["fairness"] = told.document
        text += f"\n\n{told.text}"
        parts = told.parts
    if report is not None:
        _write_page(loaded, decision, parts, report)
    text += "".join(f"\nwritten to {written}" for written in (out, report) if written is not None)
    answer(as_json, document, text)


def _decided_by_run(loaded: Model, run: Path, policy: str | None) -> Model:
    """The model with the network of a finished run as its objective."""
    if policy is not None:
        raise ModelError("--run and --policy both say who decides", "leave one of them out.")
    from rmab_opt.learning import load_policy

    return loaded.with_objective(load_policy(run, loaded).chooser.objective)


def _believed(
    loaded: Model, given: np.ndarray | None, standing: Standing | None, seed: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The states to decide from and, where some are only estimated, their chances (J, S); drawn where nobody says."""
    import numpy as np

    belief = None if standing is None or not standing.estimated else standing.belief
    start = loaded.problem.start
    if given is not None or start is None or start.ndim == 1:
        return given, belief
    if loaded.instance is None:
        return start.argmax(axis=1), start
    return loaded.problem.sample_start(np.random.default_rng(seed)), belief


def _horizon(model: str, lying: Ahead | None, episodes: int, until: float) -> tuple[dict[str, str], dict[str, Any]]:
    """What is expected to the horizon: lines to print and the part of the document; empty when not asked or late."""
    if lying is None:
        return {}, {}
    from rmab_opt.overdue import given_up_at
    from rmab_opt.programme.arrivals import arrivals_of

    ahead = lying.outlook(episodes, until=until)
    if ahead is None:
        return {}, {}
    lines, document = ahead.lines(), ahead.summary()
    coming = arrivals_of(Path(model))
    if coming is not None:
        try:
            with given_up_at(until):
                lines["with joiners"] = document["joiners"] = coming.line(*lying.living_part)
        except OverdueError:
            lines["with joiners"] = "not looked at: the time was over"
    return lines, {"horizon": document}


def _told(decision: Decision, lines: dict[str, str]) -> str:
    from rmab_opt.report import tree

    return f"{decision}\n{tree('To the horizon', lines)}"


def _write_page(loaded: Model, decision: Decision, parts: list[Any], report: Path) -> None:
    from rmab_opt.page.report import decision_page
    from rmab_opt.records import write_atomically

    write_atomically(report, decision_page(loaded, decision, parts))


def _write(decision: Decision, document: dict[str, Any], out: Path) -> None:
    from rmab_opt.records import json_text, write_atomically

    if out.suffix == ".csv":
        decision.to_csv(out)
    elif out.suffix == ".xlsx":
        decision.to_excel(out)
    else:
        write_atomically(out, json_text(document) + "\n")


def _check_formats(out: Path | None, report: Path | None) -> None:
    if out is not None and out.suffix not in (".csv", ".xlsx", ".json"):
        raise ModelError(f"--out {out}: unknown format {out.suffix!r}", "end it in .csv, .xlsx or .json.")
    if report is not None and report.suffix not in (".html", ".htm"):
        raise ModelError(f"--report {report}: unknown format {report.suffix!r}", "end it in .html.")


def _start(
    loaded: Model, state: Path | None, period: int, ledger: Path | None
) -> tuple[Model, np.ndarray | None, int, Standing | None]:
    """The model, the state and round to decide from, and what the ledger says when it was asked."""
    given = loaded.state(state)
    standing = None
    if ledger is not None:
        from rmab_opt.programme.ledger import Ledger

        kept = Ledger(ledger, loaded)
        loaded, standing = kept.model, kept.standing()
        if standing is not None:
            if state is not None or period:
                raise ModelError("--ledger says state and round itself", "leave out --state and --period.")
            given, period = standing.state, standing.period
    if not 0 <= period < loaded.problem.horizon:
        raise ModelError(
            f"--period {period}" if standing is None else f"the ledger stands before round {period + 1}, past the last",
            f"give --period from 0 to {loaded.problem.horizon - 1}, or set problem.horizon.",
        )
    return loaded, given, period, standing


def _asked(loaded: Model, decision: Decision, why_not: list[str], alternatives: int) -> str:
    """Answers to ``--why-not`` and ``--alternatives``, one a line."""
    from rmab_opt.errors import InfeasibleError, SolverError

    text = ""
    for name in why_not:
        loaded.actions.columns.index(name)
        try:
            text += f"\n{decision.why_not(name)}"
        except (InfeasibleError, SolverError) as error:
            text += f"\n{error.message}"
    if not alternatives:
        return text
    plans = decision.alternatives(alternatives)
    for number, plan in enumerate(plans, start=1):
        text += f"\nplan {number + 1}: {' '.join(plan.chosen)}   value {plan.value:.6g}"
    if plans.reason is not None:
        text += f"\n{plans.reason}"
    return text
