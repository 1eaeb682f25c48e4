"""The command line: speaks to a person; every verb also answers in JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rmab_opt import __version__
from rmab_opt.errors import ModelError, RmabError

# Everything else is imported inside the verbs: `rmab-opt --help` must not load torch or Pyomo.

app = typer.Typer(
    help="Decide under constraints, with a certificate; train and evaluate policies for restless bandits.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or a model file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value in place of the file's.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
SolverName = Annotated[str | None, typer.Option("--solver", metavar="PROFILE", help="A profile's name or TOML file.")]
Jobs = Annotated[int | None, typer.Option("--jobs", metavar="N", help="Worker processes; -1 for all cores.")]
GroupColumn = Annotated[
    str | None, typer.Option("--groups", metavar="COLUMN", help="Compare groups: a column of the cohort's table.")
]
StateFile = Annotated[
    Path | None, typer.Option("--state", metavar="CSV", help="States of the arms: columns id, state.")
]


LedgerFolder = Annotated[
    Path | None, typer.Option("--ledger", metavar="DIR", help="Start from the rounds recorded here.")
]


def main() -> None:
    """Entry point: errors become one message and an exit code (2 input, 3 infeasible, 4 solver)."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, standalone_mode=True)
    except RmabError as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("stopped by Ctrl-C; what was finished is kept", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # The rim: a person gets one line, --debug the traceback.
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error}\n  To fix, repeat with --debug and report it.", 70)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    sys.exit(code)


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def _answer(as_json: bool, document: Any, text: str) -> None:
    _say(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) if as_json else text)


def _load(name: str, sets: list[str] | None) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from rmab_opt.catalog import load

    overrides = {}
    for entry in sets or []:
        key, sign, value = entry.partition("=")
        if not sign or not key.strip():
            raise ModelError(f"--set {entry!r}", "write --set key=value, for example --set n_arms=40.")
        try:
            overrides[key.strip()] = YAML(typ="safe", pure=True).load(value)
        except YAMLError:
            raise ModelError(
                f"--set {entry!r}: {value!r} is not a value", "put text with special signs in quotes."
            ) from None
    return load(name, **overrides)


def _version(asked: bool) -> None:
    if asked:
        _say(f"rmab-opt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    """Decide under constraints, with a certificate; train and evaluate policies for restless bandits."""


@app.command()
def models(as_json: Json = False) -> None:
    """List the shipped models."""
    from rmab_opt.catalog import load, model_names
    from rmab_opt.report import table_text

    rows = []
    for name in model_names():
        model = load(name)
        rows.append(
            {
                "name": name,
                "title": model.title,
                "arms": model.problem.n_arms,
                "columns": len(model.actions),
                "horizon": model.problem.horizon,
                "source": model.source,
            }
        )
    _answer(as_json, rows, table_text(rows))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The shipped model to begin from.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Write a model file and its tables into a new folder, to change."""
    from rmab_opt.catalog import copy_model

    written = copy_model(name, folder)
    text = "\n".join(str(path) for path in written)
    _answer(as_json, [str(path) for path in written], f"{text}\nnext: rmab-opt check {written[0]}")


@app.command()
def check(
    model: ModelName,
    sets: Sets = None,
    decision: Annotated[
        Path | None, typer.Option("--decision", metavar="JSON", help="Verify a saved decision.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a model and say what it holds; with --decision, re-check a saved decision without a solver."""
    from rmab_opt.report import tree

    loaded = _load(model, sets)
    if decision is not None:
        from rmab_opt.decisions import verify

        verdict = verify(decision, loaded.problem, loaded.actions, loaded.objective)
        document = {"verified": verdict.ok, "problems": list(verdict.problems), "value": verdict.value}
        _answer(as_json, document, str(verdict))
        if not verdict.ok:
            raise typer.Exit(4)
        return
    conflict = loaded.actions.explain()
    if conflict is not None:
        raise conflict.error()
    problem = loaded.problem
    sentences = loaded.actions.describe()
    lines = {
        "arms": f"{problem.n_arms} of {problem.dynamics.n_states} states and {problem.dynamics.n_actions} actions",
        "horizon": f"{problem.horizon} rounds, discount {problem.discount:g}",
        **{f"· {name}": sentence for name, sentence in sentences.items()},
        "objective": type(loaded.objective).__name__,
        "solver": f"profile {loaded.solver}",
        "ready": "some action satisfies all constraints",
    }
    document = {
        "title": loaded.title,
        "arms": problem.n_arms,
        "columns": len(loaded.actions),
        "constraints": sentences,
        "objective": type(loaded.objective).__name__,
        "solver": str(loaded.solver),
        "ready": True,
    }
    _answer(as_json, document, tree(f"Model · {loaded.title}", lines))


@app.command()
def decide(
    model: ModelName,
    state: StateFile = None,
    solver: SolverName = None,
    sets: Sets = None,
    period: Annotated[int, typer.Option(help="Round, counted from 0.")] = 0,
    ledger: LedgerFolder = None,
    relax: Annotated[
        str | None, typer.Option(metavar="NAME", help="Loosen this constraint by its least change.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Decide by the network of this run.")] = None,
    seed: Annotated[int, typer.Option(help="Of a random first state, when no --state is given.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the list: .csv, .xlsx or .json.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Write one page to read and print: a list by worker and slot.")
    ] = None,
    why_not: Annotated[
        list[str] | None, typer.Option("--why-not", metavar="ID", help="What choosing ID would cost.")
    ] = None,
    alternatives: Annotated[int, typer.Option(help="Other plans within 1 % to print.")] = 0,
    groups: GroupColumn = None,
    as_json: Json = False,
) -> None:
    """Choose this round's action and prove how good it is."""
    import numpy as np

    from rmab_opt.decisions import Chooser
    from rmab_opt.errors import InfeasibleError

    loaded = _load(model, sets)
    objective = loaded.objective
    if run is not None:
        from rmab_opt.learning import load_policy

        objective = load_policy(run, loaded).chooser.objective
    if out is not None and out.suffix not in (".csv", ".xlsx", ".json"):
        raise ModelError(f"--out {out}: unknown format {out.suffix!r}", "end it in .csv, .xlsx or .json.")
    if report is not None and report.suffix not in (".html", ".htm"):
        raise ModelError(f"--report {report}: unknown format {report.suffix!r}", "end it in .html.")
    given = loaded.state(state)
    standing = None
    if ledger is not None:
        from rmab_opt.programme.ledger import Ledger

        standing = Ledger(ledger, loaded).standing()
        if standing is not None:
            if state is not None or period:
                raise ModelError("--ledger says state and round itself", "leave out --state and --period.")
            given, period = standing.state, standing.period
    if not 0 <= period < loaded.problem.horizon:
        raise ModelError(
            f"--period {period}" if standing is None else f"the ledger stands before round {period + 1}, past the last",
            f"give --period from 0 to {loaded.problem.horizon - 1}, or set problem.horizon.",
        )
    if given is None and loaded.problem.start.ndim != 1:
        given = loaded.problem.sample_start(np.random.default_rng(seed))
    chooser = Chooser(
        loaded.problem,
        loaded.actions,
        objective,
        loaded.solver if solver is None else solver,
        relax=relax,
        title=f"{loaded.title}{f' · {state.stem}' if state is not None else ''}",
        many=False,
    )
    decision = chooser.decide(given, period)
    if out is not None:
        writers: dict[str, Any] = {".csv": decision.to_csv, ".xlsx": decision.to_excel, ".json": decision.to_json}
        writers[out.suffix](out)
    text = str(decision)
    for name in why_not or []:
        loaded.actions.columns.index(name)
        try:
            text += f"\n{decision.why_not(name)}"
        except InfeasibleError as error:
            text += f"\n{error.message}"
    for number, plan in enumerate(decision.alternatives(alternatives) if alternatives else [], start=1):
        text += f"\nplan {number + 1}: {' '.join(plan.chosen)}   value {plan.value:.6g}"
    document = decision.summary()
    if standing is not None:
        document["ledger"] = {"round": standing.period + 1, "estimated": standing.estimated}
        text += f"\nfrom the ledger: {standing}"
    parts: list[Any] = []
    if groups is not None:
        from rmab_opt.settings.equity.fairness import fairness_of

        fairness = fairness_of(loaded, decision, groups)
        document["fairness"] = fairness.summary()
        text += f"\n\n{fairness}"
        parts = [(f"By {groups}", fairness.rows), ("", fairness.sentence)]
    if report is not None:
        from rmab_opt.page.report import decision_page
        from rmab_opt.report import write_atomically

        write_atomically(report, decision_page(loaded, decision, parts))
    for written in (out, report):
        if written is not None:
            text += f"\nwritten to {written}"
    _answer(as_json, document, text)


@app.command()
def record(
    model: ModelName,
    decision: Annotated[Path, typer.Option("--decision", metavar="JSON", help="The saved decision of the round.")],
    outcomes: Annotated[
        Path, typer.Option("--outcomes", metavar="CSV", help="Columns id, done (yes or no), state; gaps are allowed.")
    ],
    ledger: Annotated[Path, typer.Option("--ledger", metavar="DIR", help="Where rounds are kept.")],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Keep what was done and observed in a round; `decide --ledger` starts from there."""
    import json

    from rmab_opt.problem import Table
    from rmab_opt.programme.ledger import Ledger

    try:
        made = json.loads(decision.read_text(encoding="utf-8"))
        missing = {"ids", "state", "action", "period"} - set(made)
    except (OSError, ValueError, TypeError):
        missing = {"ids"}
    if missing:
        raise ModelError(f"{decision}: is no saved decision", "write one with `rmab-opt decide --out FILE.json`.")
    kept = Ledger(ledger, _load(model, sets))
    path = kept.record(made, Table.from_csv(outcomes))
    standing = kept.standing()
    assert standing is not None
    done, decided = set(kept.rounds[-1]["done"]), set(kept.rounds[-1]["decided"])
    document = {
        "file": str(path),
        "done": sorted(done),
        "not_done": sorted(decided - done),
        "observed": len(kept.rounds[-1]["observed"]),
        "estimated": standing.estimated,
    }
    _answer(
        as_json,
        document,
        f"recorded in {path}: {len(done)} done, {len(decided - done)} planned but not done, "
        f"{document['observed']} states observed\nnext: {standing}",
    )


def _limits(sweep: str) -> tuple[str, list[float]]:
    """``budget=5:50:5`` as a resource and its limits."""
    name, sign, span = sweep.partition("=")
    try:
        low, high, step = (float(part) for part in span.split(":"))
    except ValueError:
        low, high, step = 0.0, -1.0, 0.0
    if not sign or not low <= high or not step > 0 or not high < 1e12:
        raise ModelError(f"--sweep {sweep!r}", "write --sweep NAME=FROM:TO:STEP, for example --sweep budget=5:50:5.")
    return name, [low + step * k for k in range(int((high - low) / step + 1e-9) + 1)]


@app.command()
def bound(
    model: ModelName,
    state: StateFile = None,
    sweep: Annotated[str | None, typer.Option(metavar="NAME=FROM:TO:STEP", help="The bound over a limit.")] = None,
    kind: Annotated[str, typer.Option(help="auto, time_indexed, discounted, discounted_tail or average.")] = "auto",
    coupling: Annotated[
        str, typer.Option(help="auto, relaxation, or hull: tighter for routes and loads, takes longer.")
    ] = "auto",
    method: Annotated[str, typer.Option(help="auto, dual, highs or pyomo.")] = "auto",
    margin: Annotated[int, typer.Option(help="List so many arms at the margin.")] = 0,
    groups: GroupColumn = None,
    welfare: Annotated[
        str, typer.Option(help="With --groups: leximin, max_min, nash, nash_groups, utilitarian or a number.")
    ] = "leximin",
    target: Annotated[
        list[float] | None, typer.Option(help="With --groups: the smallest budget that lifts every group so far.")
    ] = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the curve (CSV and plot).")] = None,
    as_json: Json = False,
) -> None:
    """Say what no policy can exceed, and what one more unit of a resource is worth."""
    from rmab_opt.decisions import bound as upper_bound
    from rmab_opt.decisions import margin as arms_at_margin
    from rmab_opt.planning import sweep as curve_over
    from rmab_opt.report import table_csv, table_text, write_atomically

    loaded = _load(model, sets)
    if groups is not None:
        _bound_of_groups(loaded, state, groups, welfare, target or [], as_json)
        return
    if target:
        raise ModelError("--target without --groups", "say whose target it is: --groups COLUMN.")
    if sweep is None:
        found = upper_bound(loaded, state, kind=kind, coupling=coupling, method=method)
        near = arms_at_margin(loaded, found, state, margin) if margin > 0 else []
        text = f"{found}\n{table_text(near)}" if near else str(found)
        _answer(as_json, {**found.summary(), "margin": near} if near else found.summary(), text)
        return
    name, limits = _limits(sweep)
    curve = curve_over(loaded.problem, loaded.actions, limits, resource=name, breakpoints=20)
    rows = curve.rows()
    text = table_text(rows)
    if out is not None:
        from rmab_opt.learning.plots import curve_plot

        write_atomically(out / "bound.csv", table_csv(rows))
        curve_plot(curve, out / "bound.png", title=loaded.title)
        text += f"\nwritten to {out}"
    _answer(as_json, rows, text)


def _bound_of_groups(
    loaded: Any, state: Path | None, column: str, welfare: str, targets: list[float], as_json: bool
) -> None:
    """What groups can get together at most; with targets, the smallest budgets that reach them."""
    from rmab_opt.report import table_text
    from rmab_opt.settings.equity import fair_plan
    from rmab_opt.settings.equity.fairness import capacity_table
    from rmab_opt.settings.equity.policies import model_groups

    named = model_groups(loaded, column)
    if targets:
        rows = capacity_table(loaded, targets, group=named)
        _answer(as_json, rows, table_text(rows))
        return
    try:
        wanted: str | float = float(welfare)
    except ValueError:
        wanted = welfare
    plan = fair_plan(loaded.problem, loaded.actions, named, welfare=wanted, state=loaded.state(state), tolerance=1e-5)
    _answer(as_json, plan.summary(), str(plan))


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """A progress bar on stderr, so that stdout stays the answer."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
    )
    with bar:
        yield bar


@app.command()
def train(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The run's folder; an unfinished run in it goes on.")],
    seed: Annotated[int, typer.Option(help="Of everything random in the run.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many runs, each in a folder of its own under --out.")] = 1,
    jobs: Jobs = None,
    sets: Sets = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    policy: Annotated[str, typer.Option(help="q_network or neural_index.")] = "q_network",
    as_json: Json = False,
) -> None:
    """Train a Q-network whose argmax is this model's program, or a neural index."""
    from rmab_opt.learning import DQNConfig
    from rmab_opt.learning import train as learn

    loaded = _load(model, sets)
    if policy == "neural_index":
        _train_neural_index(loaded, model, out, seed, device, as_json)
        return
    if policy != "q_network":
        raise ModelError(f"--policy {policy!r}", "use q_network or neural_index.")
    config = DQNConfig.from_mapping(dict(loaded.settings.get("train", {})))
    if seeds != 1:
        _train_seeds(loaded, config, out, range(seed, seed + seeds), device, jobs, as_json)
        return
    with _progress(as_json) as bar:
        task = None if bar is None else bar.add_task("training", total=config.episodes)

        def show(row: dict[str, Any]) -> None:
            if bar is not None:
                bar.update(task, completed=row["episode"], description=f"training · reward {row['reward']:.4g}")

        run = learn(loaded, config, seed=seed, out=out, device=device, on_event=show)
    from rmab_opt.learning.plots import learning_plot

    learning_plot(run.log, run.folder / "learning.png", title=loaded.title)
    last = run.log[-10:]
    mean = sum(row["reward"] for row in last) / len(last)
    document = {
        "folder": str(run.folder),
        "episodes": len(run.log),
        "mean_reward_last": mean,
        "weights_sha256": run.weights_hash(),
        "seconds": run.seconds,
    }
    text = (
        f"{len(run.log)} episodes in {run.folder}; mean reward of the last {len(last)}: {mean:.5g}; {run.seconds:.0f} s"
    )
    _answer(as_json, document, f"{text}\nnext: rmab-opt evaluate {model} --policies {run.folder},myopic,random,none")


def _train_seeds(
    loaded: Any, config: Any, out: Path, seeds: range, device: str, jobs: int | None, as_json: bool
) -> None:
    """Several runs side by side, each in a folder named after its seed."""
    from rmab_opt.learning.dqn import train_seeds
    from rmab_opt.report import table_text

    if not seeds:
        raise ModelError(f"--seeds {len(seeds)}", "give at least 1.")
    rows = []
    with _progress(as_json) as bar:
        task = None if bar is None else bar.add_task("training", total=len(seeds))
        for seed, run in train_seeds(loaded, config, seeds=seeds, out=out, device=device, n_jobs=jobs):
            last = [row["reward"] for row in run.log[-10:]]
            row = {"seed": seed, "folder": str(run.folder), "mean_reward_last": sum(last) / len(last)}
            rows.append({**row, "weights_sha256": run.weights_hash(), "seconds": run.seconds})
            if bar is not None:
                bar.update(task, advance=1)
    rows.sort(key=lambda row: row["seed"])
    _answer(as_json, rows, table_text([{key: row[key] for key in row if key != "weights_sha256"} for row in rows]))


def _train_neural_index(loaded: Any, name: str, out: Path, seed: int, device: str, as_json: bool) -> None:
    """Train, show progress and say what came of it."""
    from rmab_opt.settings.neural_index import train_neural_index

    with _progress(as_json) as bar:
        task = None if bar is None else bar.add_task("training", total=None)

        def show(row: dict[str, Any]) -> None:
            if bar is not None:
                said = f"loss {row['loss']:.4g}"
                said += "" if row["reward"] is None else f" · reward {row['reward']:.5g}"
                bar.update(task, total=row["steps"], completed=row["step"], description=f"training · {said}")

        run = train_neural_index(loaded, seed=seed, out=out, device=device, on_event=show)
    last = run.log[-1]
    document = {
        "folder": str(run.folder),
        "policy": "neural_index",
        "steps": last["step"],
        "loss": last["loss"],
        "simulated_reward": last["reward"],
        "weights_sha256": run.weights_hash(),
        "seconds": run.seconds,
    }
    text = f"{last['step']} steps in {run.folder}; loss {last['loss']:.4g}; {run.seconds:.0f} s"
    _answer(as_json, document, f"{text}\nnext: rmab-opt evaluate {name} --policies {run.folder},lagrangian,myopic,none")


@app.command()
def evaluate(
    model: ModelName,
    policies: Annotated[
        str, typer.Option(help="Names or run folders, separated by commas.")
    ] = "none,random,sampling,myopic",
    seeds: Annotated[int, typer.Option(help="How many seeds (instances, for a generated model).")] = 1,
    seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    episodes: Annotated[int, typer.Option(help="Episodes a seed.")] = 20,
    reward: Annotated[str, typer.Option(help="expected or sampled.")] = "expected",
    solver: SolverName = None,
    with_bound: Annotated[bool, typer.Option("--bound/--no-bound", help="Compare with the upper bound.")] = True,
    hull: Annotated[bool, typer.Option("--hull", help="The tightest bound, through the allowed actions.")] = False,
    groups: GroupColumn = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table (CSV, JSON, LaTeX) and the plots.")] = None,
    jobs: Jobs = None,
    quick: Annotated[bool, typer.Option("--quick", help="MODEL sequoia_table: one instance, the default.")] = False,
    full: Annotated[bool, typer.Option("--full", help="MODEL sequoia_table: ten instances, two sizes.")] = False,
    as_json: Json = False,
) -> None:
    """Compare policies on common random numbers; MODEL sequoia_table compares over all coupled settings."""
    from dataclasses import replace

    if model == "sequoia_table":
        if quick and full:
            raise ModelError("--quick and --full", "give one of them.")
        _sequoia_table(Path("sequoia_table") if out is None else out, full, jobs, as_json)
        return
    if quick or full:
        raise ModelError(f"--quick or --full with model {model!r}", "they are of 'sequoia_table'; give --seeds.")

    from rmab_opt.learning import evaluate as compare
    from rmab_opt.report import write_atomically

    loaded = _load(model, sets)
    if solver is not None:
        loaded = replace(loaded, solver=solver)
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if seeds < 1:
        raise ModelError(f"--seeds {seeds}", "give at least 1.")
    if groups is not None:
        if seeds > 1:
            raise ModelError(f"--groups with --seeds {seeds}", "give --episodes: groups are those of one instance.")
        from rmab_opt.settings.equity.fairness import compare_groups, group_plot

        grouped = compare_groups(loaded, names, group=groups, episodes=episodes, seed=seed, bound=with_bound)
        if out is not None:
            write_atomically(out / "groups.csv", grouped.to_csv())
            write_atomically(out / "groups.tex", grouped.to_latex())
            group_plot(grouped, out / "groups.png")
        text = str(grouped) + (f"\nwritten to {out}" if out is not None else "")
        _answer(as_json, {"header": grouped.header, "rows": grouped.rows}, text)
        return
    with _progress(as_json) as bar:
        task = None if bar is None else bar.add_task("evaluating", total=len(names) * seeds * loaded.problem.horizon)

        def show(event: dict[str, Any]) -> None:
            if bar is not None:
                bar.update(task, advance=event["advance"], description=f"evaluating {event['policy']}")

        table = compare(
            loaded,
            names,
            seeds=range(seed, seed + seeds),
            episodes=episodes,
            reward=reward,
            bound="hull" if with_bound and hull else with_bound,
            n_jobs=jobs,
            on_event=show,
        )
    if out is not None:
        from rmab_opt.learning.plots import policy_plot, time_plot

        write_atomically(out / "evaluation.csv", table.to_csv())
        write_atomically(out / "evaluation.tex", table.to_latex())
        write_atomically(
            out / "evaluation.json", json.dumps({"header": table.header, "rows": table.rows}, indent=1) + "\n"
        )
        policy_plot(table, out / "evaluation.png")
        time_plot(table.seconds, out / "seconds.png", title=loaded.title)
    text = str(table) + (f"\nwritten to {out}" if out is not None else "")
    _answer(as_json, {"header": table.header, "rows": table.rows}, text)


def _sequoia_table(out: Path, full: bool, jobs: int | None, as_json: bool) -> None:
    """The comparison over all coupled settings, or the rest of it."""
    from rmab_opt.catalog import load
    from rmab_opt.learning.plots import policy_plot, time_plot
    from rmab_opt.settings.coupled.comparison import FULL, QUICK, compare

    with _progress(as_json) as bar:
        task = None if bar is None else bar.add_task("comparing", total=None)

        def show(event: dict[str, Any]) -> None:
            if bar is not None:
                bar.update(task, total=event["tasks"], completed=event["done"], description=f"after {event['task']}")

        found = compare(FULL if full else QUICK, out, load=load, n_jobs=jobs, on_event=show)
    for name, table in found.tables.items():
        policy_plot(table, out / f"{name}.png")
        time_plot(table.seconds, out / f"{name}.seconds.png", title=name)
    _answer(as_json, {"rows": found.rows, "times": found.times}, f"{found}\nwritten to {out}")


if __name__ == "__main__":
    main()
