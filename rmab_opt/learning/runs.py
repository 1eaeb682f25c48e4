"""Finished runs read back as policies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rmab_opt import registry
from rmab_opt.decisions import Chooser, Model
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.errors import ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import SHARED_WEIGHTS, AnchoredQ, ContextInput, PooledQ, QNetwork, make_network
from rmab_opt.learning.run_folder import RunFolder, fingerprint
from rmab_opt.planning.anchors import anchor_values

__all__ = ["load_network", "load_policy"]


def load_policy(folder: str | Path, model: Model, *, solver: str | None = None) -> ChooserPolicy:
    """The greedy policy of a finished run, for its own model; a neural index also for other cohorts.

    Raises
    ------
    ModelError
        When there are no weights in the folder or they are of another model.
    """
    run = RunFolder(folder)
    stored = run.read_tensors("weights")
    if stored is None:
        raise ModelError(f"{run.path}: holds no finished run", "train into this folder first.")
    meta = stored[1]
    if "policy" in meta:
        # Runs of other learners than this one say whose they are.
        loader = registry.find("run", str(meta["policy"])).make
        found: ChooserPolicy = loader(folder, model if solver is None else replace(model, solver=solver))
        return found
    network = load_network(run, model)
    silent = isinstance(network, AnchoredQ) and network.silent
    objective = network.alone() if isinstance(network, AnchoredQ) and silent else network.objective()
    chooser = Chooser(
        model.problem, model.actions, objective, model.solver if solver is None else solver, title=model.title
    )
    return ChooserPolicy(chooser, "learned")


def load_network(run: RunFolder, model: Model) -> QNetwork:
    """The network of a finished run, on its own cohort or another.

    Raises
    ------
    ModelError
        As :func:`load_policy`.
    """
    stored = run.read_tensors("weights")
    if stored is None:
        raise ModelError(f"{run.path}: holds no finished run", "train into this folder first.")
    arrays, meta = stored
    config = DQNConfig.from_mapping(meta["config"])
    weights = {key: torch.as_tensor(array) for key, array in arrays.items()}
    own = meta.get("fingerprint") == fingerprint(model)
    if not own and config.network not in SHARED_WEIGHTS:
        raise ModelError(
            f"{run.path}: was trained on another model",
            f"evaluate it on the model it was trained on; {', '.join(SHARED_WEIGHTS)} networks serve other cohorts.",
        )
    options: dict[str, Any] = {}
    if config.network in SHARED_WEIGHTS:
        options["features"] = tuple(arrays[f"feature_{name}"] for name in ("place", "mean", "spread"))
    if not own:
        _same_arms(weights, model, config, run.path)
        # Weights shared by arms know no cohort; the arm values below them are this cohort's own.
        weights = {key: tensor for key, tensor in weights.items() if key not in ("base", "offset")}
        if "prior" in weights:
            known = float(meta["slope"]) * anchor_values(model.problem, model.actions, str(meta["anchor"]))
            weights["prior"] = torch.as_tensor(known)
        if config.network == "anchored":
            options["values"] = anchor_values(model.problem, model.actions, str(meta["anchor"]))
    network = make_network(
        config.network, model.problem, model.actions.columns, config.hidden, config.head, 1.0, 0, **options
    )
    if "prior" in weights and isinstance(network, PooledQ):
        network.prior = torch.zeros_like(weights["prior"])
    try:
        network.load_state_dict(weights, strict=own)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ModelError(f"{run.path / 'weights.safetensors'}: does not fit the run ({said})", "train again.") from None
    return network


def _same_arms(weights: dict[str, torch.Tensor], model: Model, config: DQNConfig, path: Path) -> None:
    """Refuse weights whose arms have other states or actions than the model's."""
    if config.network == "loads":
        return
    dynamics = model.problem.dynamics
    beside = len(model.problem.shared_names) + ContextInput(model.problem).width
    wide = weights["arm.0.weight"].shape[1] - len(weights["feature_place"]) - 1 - beside
    out = max(int(key.split(".")[1]) for key in weights if key.startswith("arm."))
    levels = weights[f"arm.{out}.weight"].shape[0] // (1 + config.head)
    if (wide, levels) != (dynamics.n_states, dynamics.n_actions):
        raise ModelError(
            f"{path}: was trained on another model: arms of {wide} states and {levels} actions, "
            f"here {dynamics.n_states} and {dynamics.n_actions}",
            "evaluate it on a cohort of the same kind of arms.",
        )
