"""``rmab-opt check``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rmab_opt.cli.common import (
    THIS_WEEK,
    Force,
    Json,
    ModelName,
    Seconds,
    Sets,
    answer,
    check_outputs,
    in_programme,
    load_model,
    load_now,
    stoppable,
)
from rmab_opt.errors import LimitError, ModelError
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.actions import ActionSet
    from rmab_opt.actions.agreement import Agreement
    from rmab_opt.decisions import Model
    from rmab_opt.problem import Table

KEPT = 0.9
"""Share of --seconds for reading and comparing; the rest is for the answer."""


@register("verb", "check", group=THIS_WEEK)
def check(
    model: ModelName,
    sets: Sets = None,
    decision: Annotated[
        Path | None, typer.Option("--decision", metavar="JSON", help="Verify a saved decision.")
    ] = None,
    bound: Annotated[Path | None, typer.Option("--bound", metavar="JSON", help="Verify a saved bound.")] = None,
    relax: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --decision: accept that this constraint was loosened.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export-proof", metavar="OUT", help="With --decision: its proof for other programs to check."),
    ] = None,
    seconds: Seconds = None,
    force: Force = False,
    readings: Annotated[
        bool, typer.Option("--readings", help="Say line by line what was assumed, dropped or changed in the tables.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a model holds; with --decision or --bound, re-check a saved one without a solver."""
    from rmab_opt.catalog import check_names
    from rmab_opt.report import tree

    began = perf_counter()
    if seconds is not None and (decision is not None or bound is not None):
        raise ModelError("--seconds with --decision or --bound", "leave it out: a proof is followed to its end.")
    # A bound of a programme's folder is of the rounds that are left, as `bound` is.
    loaded = load_model(model, sets) if bound is None else load_now(model, sets)
    if decision is not None and bound is not None:
        raise ModelError("--decision and --bound", "check one file at a time.")
    if decision is not None and in_programme(model):
        loaded = _as_it_was(loaded, Path(model), decision)
    if export is not None:
        if decision is None:
            raise ModelError("--export-proof without --decision", "name the saved decision whose proof it is.")
        check_outputs(loaded, export, also=[decision])
    if decision is not None or bound is not None:
        _judge(loaded, decision, bound, relax, export, as_json)
        return
    check_names(loaded)
    problem = loaded.problem
    first = loaded.actions.at(0, problem.shared_values(problem.start_shared))
    due = None if seconds is None else began + KEPT * seconds
    (ready, agreement), stopped = stoppable(partial(_looked, first), due)
    late = "by Ctrl-C" if stopped else f"in {seconds:g} s: give more --seconds" if seconds is not None else ""
    sentences = loaded.actions.describe()
    lines = {
        "arms": f"{problem.n_arms} of {problem.dynamics.n_states} states and {problem.dynamics.n_actions} actions",
        "horizon": f"{problem.horizon} rounds, discount {problem.discount:g}",
        **{f"· {name}": sentence for name, sentence in sentences.items()},
        "objective": type(loaded.objective).__name__,
        "solver": f"profile {loaded.solver}",
        "compared": str(agreement),
        **{f"read {_name(table)}": _facts(table) for table in loaded.tables},
        "ready": "some action satisfies all constraints" if ready else f"not settled {late}",
    }
    found = {
        "title": loaded.title,
        "arms": problem.n_arms,
        "columns": len(loaded.actions),
        "constraints": sentences,
        "objective": type(loaded.objective).__name__,
        "solver": str(loaded.solver),
        "compared": agreement.compared,
        "not_compared": list(agreement.left_out),
        "tables": [
            {
                "file": _name(table),
                "rows": len(table),
                "facts": table.log.facts,
                "remarks": [remark.row() for remark in table.log.remarks],
            }
            for table in loaded.tables
        ],
        "ready": ready,
    }
    text = tree(f"Model · {loaded.title}", lines)
    for table in loaded.tables if readings else ():
        text += f"\n{_name(table)}: {len(table)} rows"
        text += "".join(f"\n  {key}: {value}" for key, value in table.log.facts.items())
        text += "".join(f"\n  {remark}" for remark in table.log.remarks)
    answer(as_json, found, text)


def _looked(actions: ActionSet, *, deadline: float | None) -> tuple[bool | None, Agreement]:
    """(whether some action is allowed, None where that is not settled in time; how far rows and checks were compared).

    Raises
    ------
    InfeasibleError
        When none is.
    CertificateError
        When rows and checks disagree.
    """
    until = math.inf if deadline is None else deadline
    ready: bool | None = True
    try:
        conflict = actions.explain(until)
    except LimitError:
        conflict, ready = None, None
    if conflict is not None:
        raise conflict.error()
    agreement = actions.agreement(until)
    agreement.demand()
    return ready, agreement


def _as_it_was(loaded: Model, folder: Path, decision: Path) -> Model:
    """A programme's model as it stood before the round of a saved decision: guarantees count the rounds before it."""
    from rmab_opt.programme.ledger import Ledger
    from rmab_opt.records import read_object

    ledger = Ledger(folder / "ledger", loaded)
    period = read_object(decision, "saved decision", "give the file that `decide --out` wrote.").get("period")
    return ledger.before(period) if isinstance(period, int) and 0 <= period <= len(ledger.rounds) else ledger.model


def _judge(
    loaded: Model, decision: Path | None, bound: Path | None, relax: str | None, export: Path | None, as_json: bool
) -> None:
    """Verify a saved decision or bound; the exit code says how far it holds."""
    if bound is not None:
        from rmab_opt.decisions import verify_bound

        verdict = verify_bound(bound, loaded)
    else:
        from rmab_opt.decisions import verify
        from rmab_opt.programme.front_door import saved_objective

        assert decision is not None
        objective = saved_objective(loaded, decision)
        verdict = verify(decision, loaded.problem, loaded.actions, objective, relax=relax)
    document = {
        "verified": verdict.ok and verdict.proven,
        "value_and_constraints": verdict.ok,
        "problems": list(verdict.problems),
        "value": verdict.value,
        "says": verdict.said,
    }
    text = str(verdict)
    if export is not None and verdict.ok and decision is not None:
        from rmab_opt.decisions.export import export_proof
        from rmab_opt.decisions.saved import DecisionFile, saved_question

        saved, question = saved_question(decision, loaded.problem, loaded.actions, objective, relax=relax)
        if not isinstance(saved, DecisionFile) or saved.proof.kind in ("none", "gains"):
            raise ModelError(f"{decision}: holds no proof", "decide again; proofs stand in files of format 2.")
        export_proof(saved, question, export)
        text += f"\nproof written to {export}"
    answer(as_json, document, text)
    if verdict.exit_code:
        raise typer.Exit(verdict.exit_code)


def _name(table: Table) -> str:
    return table.source if table.path is None else table.path.name


def _facts(table: Table) -> str:
    """What reading a table assumed and did, in one line."""
    facts = [f"{key} {value}" for key, value in table.log.facts.items()]
    remarks = len(table.log.remarks)
    more = [f"{remarks} remarks (see --readings)"] if remarks else []
    return ", ".join([f"{len(table)} rows", *facts, *more])
