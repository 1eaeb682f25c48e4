"""A table over settings, instances and policies that survives being killed: a ledger entry a task, whole or absent.

The published comparison of embedded Q-planning (four coupled settings) and the stateful settings beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from rmab_opt.decisions import Model
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.dqn import train
from rmab_opt.learning.evaluation import Evaluation, evaluate, summary_rows
from rmab_opt.parallel import pmap
from rmab_opt.records import json_text, read_object, write_atomically
from rmab_opt.report import table_csv, table_text

__all__ = ["FULL", "QUICK", "Comparison", "Plan", "Setting", "compare"]


@dataclass(frozen=True)
class Setting:
    """One model and size, on several seeded instances."""

    name: str
    """Names the setting in table and files."""
    model: str
    """Shipped model or file."""
    seeds: int
    """Instances, from seed 0 on."""
    policies: tuple[str, ...]
    """Names of :mod:`rmab_opt.decisions.policy`; ``learned`` is trained here, ``iterative_dqn`` is greedy on its Q."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values in place of the file's."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Training settings in place of the file's."""


@dataclass(frozen=True)
class Plan:
    """What a table holds."""

    settings: tuple[Setting, ...]
    episodes: int
    """Episodes a policy and instance, on common random numbers."""


PUBLISHED = (
    *("none", "random", "sampling", "iterative_myopic", "myopic", "two_step"),
    *("iterative_dqn", "static", "rollout", "open_loop", "learned"),
)
STATEFUL = ("none", "random", "myopic", "two_step", "static", "lagrangian", "lp_update", "learned")

LEARNS = ("learned", "iterative_dqn")
"""Policies that need the trained run; both take the same one."""

LARGE: dict[str, dict[str, Any]] = {
    "capacity": {"n_arms": 40, "n_workers": 10},
    "scheduling": {"n_arms": 40, "n_workers": 10, "constraints.budget.at_most": 10},
    "path": {
        "n_arms": 40,
        "n_stops": 10,
        "constraints.budget.at_most": 10,
        "constraints.route.length": 20,
        "constraints.route.depot": "arm10",
    },
    "interventions": {"n_arms": 40, "n_interventions": 20, "problem.budget": 10, "constraints.budget.equal": 10},
}
"""The published larger size, 40 arms and a budget of 10."""


def _settings(seeds: int, large: bool, stateful: bool) -> tuple[Setting, ...]:
    names = ("capacity", "scheduling", "path", "interventions")

    made = [Setting(f"{name}-20", name, seeds, PUBLISHED) for name in names]
    if stateful:
        made += [Setting(f"{name}_stateful-20", f"{name}_stateful", seeds, STATEFUL) for name in names]
    if large:
        # Route checks of ten stops make a hundred random routes a round cost more than all else together, and the
        # program with a head takes minutes there: in training its columns are climbed.
        for name in names:
            usual = tuple(policy for policy in PUBLISHED if (name, policy) != ("path", "sampling"))
            changed = {"argmax": "hill_climb", "episodes": 10} if name == "path" else {}
            made.append(Setting(f"{name}-40", name, seeds, usual, LARGE[name], changed))
    return tuple(made)


QUICK = Plan(_settings(1, large=False, stateful=True), episodes=5)
"""One instance of every setting with 20 arms."""
FULL = Plan(_settings(10, large=True, stateful=True), episodes=20)
"""Ten instances of every setting, the published ones with 20 and 40 arms."""


@dataclass(frozen=True)
class Comparison:
    """What came of a plan.

    ``rows`` hold, by setting and policy, ``instances, reward, low, high`` (mean total of an episode, 95 % interval over
    instances), ``share_of_bound, normalised``, and the mean paired difference to ``static`` (to ``myopic`` where there
    is no ``static``) in per cent of that policy with its interval: ``against, gain, gain_low, gain_high``. ``times``
    hold what depends on the machine: ``milliseconds`` a decision, ``proven_share``, ``training_cpu_seconds``.
    """

    rows: list[dict[str, Any]]
    times: list[dict[str, Any]]
    tables: dict[str, Evaluation] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        return f"{table_text(self.rows)}\n\n{table_text(self.times)}"


@dataclass(frozen=True)
class _Task:
    setting: Setting
    seed: int
    policy: str
    episodes: int
    folder: str
    load: Callable[..., Model]
    content: Mapping[str, Any] = field(repr=False)
    """The model file as it was read, overrides in place."""

    @property
    def name(self) -> str:
        return f"{self.setting.name}.{self.seed}.{self.policy}"

    @property
    def identity(self) -> dict[str, Any]:
        """What an entry must agree with to be taken: everything that its numbers depend on."""
        content = {key: value for key, value in self.content.items() if key != "train" or self.policy in LEARNS}
        trained = self.setting.train if self.policy in LEARNS else {}
        found: dict[str, Any] = {"model": content, "train": trained, "seed": self.seed, "policy": self.policy}
        if self.policy != "bound":
            found["episodes"] = self.episodes
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def compare(
    plan: Plan,
    out: str | Path,
    *,
    load: Callable[..., Model],
    n_jobs: int | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Comparison:
    """Work through a plan, or go on with it where an earlier call was stopped.

    Parameters
    ----------
    plan
        :data:`QUICK`, :data:`FULL` or another.
    out
        Folder of the ledger, the runs, the table (CSV) and the plots. Entries of an interrupted call are taken as they
        are, so that the table does not depend on interruptions; an interrupted training run goes on.
    load
        Gives a setting's model by name and overrides: :func:`rmab_opt.load`.
    n_jobs
        Worker processes; see :func:`rmab_opt.parallel.pmap`.
    on_event
        Called with ``{"task", "done", "tasks"}`` as tasks finish.

    Raises
    ------
    ModelError
        When the folder holds entries of a plan with other settings; names the entry.
    """
    out = Path(out)
    contents = {setting.name: load(setting.model, **setting.overrides).settings for setting in plan.settings}
    tasks = [
        _Task(setting, seed, policy, plan.episodes, str(out), load, contents[setting.name])
        for seed in range(max(setting.seeds for setting in plan.settings))
        for setting in plan.settings
        if seed < setting.seeds
        for policy in ("bound", *setting.policies)
    ]
    entries = {task.name: _read(out, task) for task in tasks}
    missing = [task for task in tasks if entries[task.name] is None]
    done = len(tasks) - len(missing)
    # What uses a run waits for the task that makes it: two at once would train in one folder.
    for after in (False, True):
        ready = [task for task in missing if (task.policy == "iterative_dqn") == after]
        for number, entry in pmap(_work, ready, n_jobs=n_jobs):
            task = ready[number]
            entries[task.name] = entry
            write_atomically(out / "ledger" / f"{task.name}.json", json_text(entry, indent=None) + "\n", kept=True)
            done += 1
            if on_event is not None:
                on_event({"task": task.name, "done": done, "tasks": len(tasks)})
    return _summarise(plan, out, {name: entry for name, entry in entries.items() if entry is not None})


def _read(out: Path, task: _Task) -> dict[str, Any] | None:
    path = out / "ledger" / f"{task.name}.json"
    if not path.exists():
        return None
    fix = "move it away: this part is then run again."
    entry = read_object(path, "entry of this comparison", fix)
    if not isinstance(entry.get("of"), dict) or not isinstance(entry["of"].get("model"), dict):
        raise ModelError(f"{path}: is no entry of this comparison", fix)
    found, wanted = _without_prose(entry["of"]), _without_prose(task.identity)
    if found != wanted:
        differing = [key for key, value in wanted.items() if found.get(key) != value]
        raise ModelError(
            f"{path}: was made with another {', '.join(differing)}", "name another folder, or repeat its settings."
        )
    return entry


def _without_prose(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without what is for people only: another sentence about a model changes no number."""
    model = {key: value for key, value in identity["model"].items() if key not in ("title", "about", "source")}
    return {**identity, "model": model}


def _work(task: _Task) -> dict[str, Any]:
    """One entry: a policy's totals on one instance, or the instance's bound."""
    model = task.load(task.setting.model, **task.setting.overrides)
    instance = model if model.instance is None else model.instance(task.seed)
    if task.policy == "bound":
        return {"of": task.identity, **_bound(instance)}
    trained: dict[str, Any] = {}
    given: Any = task.policy
    if task.policy in LEARNS:
        config = DQNConfig.from_mapping({**instance.settings.get("train", {}), **task.setting.train})
        clock = process_time()
        folder = Path(task.folder) / "runs" / f"{task.setting.name}.{task.seed}"
        given = train(instance, config, seed=task.seed, out=folder).policy
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        spent = process_time() - clock
        if task.policy == "learned":
            trained = {"training_cpu_seconds": spent, "anchor": record["anchor"], "kept": record["kept"]}
        else:
            given = make_policy(f"iterative_dqn:{folder}", instance)
    clock = process_time()
    table = evaluate(instance, [given], seeds=[task.seed], episodes=task.episodes, bound=False)
    name = next(iter(table.episodes))
    return {
        "of": task.identity,
        "totals": table.episodes[name][0].tolist(),
        "seconds": np.round(table.seconds[name], 6).tolist(),
        "proven_share": table.rows[0]["proven_share"],
        "cpu_seconds": process_time() - clock,
        **trained,
    }


def _bound(instance: Model) -> dict[str, Any]:
    try:
        found = upper_bound(instance, coupling="hull")
    except CapabilityError as error:
        return {"value": None, "kind": f"none: {error.message}"}
    return {"value": found.value, "kind": found.coupling}


def _summarise(plan: Plan, out: Path, entries: dict[str, dict[str, Any]]) -> Comparison:
    rows, times, tables = [], [], {}
    for setting in plan.settings:
        seeds = range(setting.seeds)
        limits = [entries[f"{setting.name}.{seed}.bound"]["value"] for seed in seeds]
        limit = None if None in limits else float(np.mean(limits))
        of = {policy: [entries[f"{setting.name}.{seed}.{policy}"] for seed in seeds] for policy in setting.policies}
        totals = {policy: np.array([entry["totals"] for entry in found]) for policy, found in of.items()}
        seconds = {policy: np.concatenate([entry["seconds"] for entry in found]) for policy, found in of.items()}
        header = {
            "model": setting.name,
            "reward": "expected",
            "horizon": len(of[setting.policies[0]][0]["seconds"]) // plan.episodes,
            "bound": limit,
        }
        table = Evaluation(summary_rows(totals, limit), header, totals, seconds)
        tables[setting.name] = table
        against = "static" if "static" in totals else "myopic"
        for row in table.rows:
            policy = row["policy"]
            paired: dict[str, Any] = {"against": against, "gain": None, "gain_low": None, "gain_high": None}
            if policy != against:
                base = float(totals[against].mean())
                apart = table.difference(policy, against)
                ends = {"gain": apart.mean, "gain_low": apart.low, "gain_high": apart.high}
                paired |= {key: None if end is None else 100.0 * end / base for key, end in ends.items()}
            rows.append({"setting": setting.name, "instances": setting.seeds, **row, **paired})
            trained = [entry["training_cpu_seconds"] for entry in of[policy] if "training_cpu_seconds" in entry]
            times.append(
                {
                    "setting": setting.name,
                    "policy": policy,
                    "milliseconds": 1e3 * float(seconds[policy].mean()),
                    "proven_share": float(np.mean([entry["proven_share"] for entry in of[policy]])),
                    "training_cpu_seconds": float(np.mean(trained)) if trained else None,
                    "kept": _kept(of[policy]),
                }
            )
    result = Comparison(rows, times, tables)
    write_atomically(out / "table.csv", table_csv(rows))
    write_atomically(out / "times.csv", table_csv(times))
    return result


def _kept(entries: Sequence[dict[str, Any]]) -> str | None:
    """How many runs kept what, for learned policies."""
    if "kept" not in entries[0]:
        return None
    names = [entry["kept"] if entry["kept"] == entry["anchor"] else f"{entry['anchor']}+head" for entry in entries]
    return " ".join(f"{name}:{names.count(name)}" for name in sorted(set(names)))
