"""Objectives by the names of model files: ``make(problem, actions, folder, *, arguments)``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmab_opt import registry
from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import (
    ArmValues,
    Immediate,
    Interpolated,
    NetworkObjective,
    Objective,
    Scores,
    Situation,
)
from rmab_opt.encoder import Network
from rmab_opt.encoder.bounds import Effort
from rmab_opt.errors import ModelError
from rmab_opt.planning import ScoreTable
from rmab_opt.planning.improve import SingleGains
from rmab_opt.problem import Problem
from rmab_opt.registry import register


@register("objective", "immediate")
def _immediate(problem: Problem, actions: ActionSet, folder: Path, *, points: int = 0) -> Objective:
    """The expected reward of the round; with ``points``, each arm's link drawn through so many of its levels."""
    return Interpolated(points) if points else Immediate()


@register("objective", "single_gains")
def _single_gains(problem: Problem, actions: ActionSet, folder: Path) -> Objective:
    """What acting on each arm alone adds to the round's expected reward, summed: for arms whose round is no sum."""
    return SingleGainsObjective(problem)


class SingleGainsObjective(ArmValues):
    """The sum over arms of what acting on each alone adds to the round's expected reward."""

    planned_by = "mean_field"

    def __init__(self, problem: Problem) -> None:
        self._rule = SingleGains(problem)

    def arm_values(self, situation: Situation) -> np.ndarray:
        return self._rule.scores(situation.state, situation.period, None, situation.shared)

    def frozen(self, situation: Situation) -> Objective:
        return Scores(self.arm_values(situation))


@register("objective", "scores")
def _scores(problem: Problem, actions: ActionSet, folder: Path, *, column: str) -> Objective:
    """A column of the table as the score of each choice."""
    return Scores(actions.columns.numbers(column))


@register("objective", "index")
def _index(problem: Problem, actions: ActionSet, folder: Path, *, index: str = "lagrangian") -> Objective:
    """The sum of a rule's scores."""
    entry, given = registry.parse("rule", index)
    table = entry.make(problem, actions, **given)
    if not isinstance(table, ScoreTable):
        raise ModelError(
            f"objective.index is {index!r}, whose scores are no table", "use it as a policy, or index: lagrangian."
        )
    return Scores(table.values)


@register("objective", "network")
def _network(
    problem: Problem,
    actions: ActionSet,
    folder: Path,
    *,
    file: str,
    inputs: tuple[str, ...] = ("action", "state"),
    activation: str | None = None,
    effort: Effort = "auto",
) -> Objective:
    """A trained network over named blocks of inputs."""
    if file.endswith(".onnx"):
        network = Network.from_onnx(folder / file)
    else:
        network = Network.from_safetensors(folder / file, activation=activation)
    return NetworkObjective(_NetworkOnState(network, problem, len(actions), tuple(inputs)), effort=effort)


class _NetworkOnState:
    """A network whose inputs are named blocks: ``action``, ``state``, ``state_one_hot``, ``time`` (share left)."""

    def __init__(self, network: Network, problem: Problem, n_columns: int, inputs: tuple[str, ...]) -> None:
        n_arms, n_states = problem.n_arms, problem.dynamics.n_states
        sizes = {"action": n_columns, "state": n_arms, "state_one_hot": n_arms * n_states, "time": 1}
        unknown = [name for name in inputs if name not in sizes]
        if unknown or inputs.count("action") != 1:
            what = f"names {unknown[0]!r}" if unknown else "does not name 'action' once"
            raise ModelError(f"objective.inputs {what}", f"use blocks of {', '.join(sizes)}.")
        wanted = sum(sizes[name] for name in inputs)
        if network.n_inputs != wanted:
            given = " + ".join(f"{name} {sizes[name]}" for name in inputs)
            raise ModelError(
                f"the network takes {network.n_inputs} inputs, {given} are {wanted}",
                "name the blocks it was trained on.",
            )
        self._network, self._inputs, self._sizes = network, inputs, sizes

    def __call__(self, situation: Situation) -> Network:
        problem = situation.problem
        values = {
            "state": situation.state.astype(float),
            "state_one_hot": np.eye(problem.dynamics.n_states)[situation.state].ravel(),
            "time": np.array([(problem.horizon - situation.period) / problem.horizon]),
        }
        positions, fixed, at = [], [], 0
        for name in self._inputs:
            if name != "action":
                positions.append(np.arange(at, at + self._sizes[name]))
                fixed.append(values[name])
            at += self._sizes[name]
        if not positions:
            return self._network
        return self._network.fold(np.concatenate(positions), np.concatenate(fixed))
