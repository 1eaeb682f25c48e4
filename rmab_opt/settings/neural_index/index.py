"""Neural index policies: a network ranks arms and actions from their own features, limits hold exactly.

Training goes through a soft allocation under the true limits (:mod:`rmab_opt.settings.neural_index.allocation`);
acting rounds the indices to the best allowed action, by prices under plain budgets and by `decide` under any other
action set. Indices depend on the arm alone, so a trained network acts on arms it has never seen without solving
anything.

References
----------
Pandey, Wang, Garcia, arXiv 2510.22069 (2025). Target, layer and gauge differ from the paper: see docs/neural_index.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Chooser, Decision, Model, Scores
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.errors import CapabilityError, ModelError, SolverError
from rmab_opt.learning.run_folder import RunFolder, fingerprint, versions
from rmab_opt.overdue import checkpoint
from rmab_opt.planning import Bound, Coupling, assign, bound
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.planning.scores import priced_action_values
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.records import write_atomically
from rmab_opt.settings.neural_index.allocation import Allocation
from rmab_opt.settings.neural_index.config import LOSSES, NeuralIndexConfig

__all__ = [
    "LOSSES",
    "NeuralIndex",
    "NeuralIndexConfig",
    "NeuralIndexPolicy",
    "NeuralRun",
    "Rounding",
    "load_neural_index",
    "load_run",
    "simulate_table",
    "train_neural_index",
]

MOST_TABLE_FEATURES = 256
"""Numbers an arm up to which its tables themselves are the features."""

CHUNK = 65_536
"""Rows of one forward pass: larger ones leave the cache."""


# ---------------------------------------------------------------------------------------------------------------------
# The network


@dataclass(frozen=True)
class _Spec:
    """What a network takes and gives: enough to rebuild it."""

    n_states: int
    n_actions: int
    features: str
    columns: tuple[str, ...]
    hidden: tuple[int, ...]
    n_features: int


def _raw_features(problem: Problem, features: str, columns: tuple[str, ...]) -> np.ndarray:
    """What tells arms apart, unscaled, (N, F)."""
    n_arms = problem.n_arms
    parts = [np.zeros((n_arms, 0))]
    if features in ("tables", "summary"):
        tabular = getattr(problem.dynamics, "tabular", None)
        if tabular is None:
            raise CapabilityError(
                "tabular()", problem.dynamics, ("set features: arms, or none with columns", "estimate the tables first")
            )
        transition, reward = tabular()
        if features == "tables":
            parts.append(transition.reshape(n_arms, -1))
        else:
            # Mean move, chance to stay and chance to rise say where an arm drifts in 3 S A numbers, not S S A.
            state = np.arange(transition.shape[-1])
            parts.append((transition @ state - state).reshape(n_arms, -1))
            parts.append(transition[:, :, state, state].reshape(n_arms, -1))
            parts.append(np.triu(transition, 1).sum(axis=-1).reshape(n_arms, -1))
        parts.append(reward.reshape(n_arms, -1))
    elif features == "arms":
        parts.append(np.eye(n_arms))
    parts += [problem.arms.numbers(name)[:, None] for name in columns]
    return np.concatenate(parts, axis=1)


class NeuralIndex(nn.Module):
    """Index of every action from an arm's own features and state; the passive action's index is 0.

    Parameters
    ----------
    spec
        Sizes and features; made by :func:`train_neural_index`.
    generator
        Of the first weights.
    """

    centre: Tensor
    spread: Tensor
    offset: Tensor

    def __init__(self, spec: _Spec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        for name, width in (("centre", spec.n_features), ("spread", spec.n_features), ("offset", spec.n_actions)):
            self.register_buffer(name, torch.zeros(width, dtype=torch.float64))
        sizes = (spec.n_features + spec.n_states, *spec.hidden, spec.n_actions - 1)
        self.layers = nn.Sequential(*(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)))
        with torch.no_grad():
            for layer in self._linear():
                reach = (1.0 / layer.in_features) ** 0.5
                layer.weight.uniform_(-reach, reach, generator=generator)
                layer.bias.uniform_(-reach, reach, generator=generator)

    def _linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def features(self, problem: Problem) -> Tensor:
        """Standardised features of a cohort, float32 (N, F), on the scale of the training cohort.

        Raises
        ------
        ModelError
            When the cohort has other states or actions than the network, or other arms where it knows arms by name.
        """
        spec = self.spec
        sizes = (problem.dynamics.n_states, problem.dynamics.n_actions)
        if sizes != (spec.n_states, spec.n_actions):
            raise ModelError(
                f"{sizes[0]} states and {sizes[1]} actions, the network knows {spec.n_states} and {spec.n_actions}",
                "train a network for this kind of arm.",
            )
        raw = _raw_features(problem, spec.features, spec.columns)
        if raw.shape[1] != spec.n_features:
            raise ModelError(
                f"{raw.shape[1]} features an arm, the network takes {spec.n_features}",
                "act on the cohort it was trained on, or train with features: tables.",
            )
        centre, spread = self.centre.cpu().numpy(), self.spread.cpu().numpy()
        # Far outside what was seen a rectified network runs off linearly; five spreads are kept.
        scaled = np.clip(np.where(spread > 0, (raw - centre) / np.where(spread > 0, spread, 1.0), 0.0), -5.0, 5.0)
        return torch.tensor(scaled, dtype=torch.float32, device=self.centre.device)

    def learn_scale(self, problem: Problem) -> None:
        """Take centre and spread of the features from a cohort; features that do not vary are left out."""
        raw = _raw_features(problem, self.spec.features, self.spec.columns)
        spread = raw.std(axis=0)
        self.centre.copy_(torch.tensor(raw.mean(axis=0)))
        self.spread.copy_(torch.tensor(np.where(spread > 1e-9, spread, 0.0)))

    def table(self, features: Tensor) -> Tensor:
        """Indices of arms with features (N, F) in every state, (N, S, A), differentiable; float32."""
        first = self._linear()[0]
        weight = first.weight
        n_features = self.spec.n_features
        # State and features enter the first layer as a sum: N + S rows instead of N S.
        by_arm = features @ weight[:, :n_features].T + first.bias
        hidden = torch.relu(by_arm[:, None, :] + weight[:, n_features:].T[None])
        return self._rest(hidden)

    def at(self, features: Tensor, state: Tensor) -> Tensor:
        """Indices in the current states (N,) only, (N, A)."""
        first = self._linear()[0]
        weight = first.weight
        n_features = self.spec.n_features
        by_arm = features @ weight[:, :n_features].T + first.bias
        return self._rest(torch.relu(by_arm + weight[:, n_features:].T[state]))

    def _rest(self, hidden: Tensor) -> Tensor:
        for number, layer in enumerate(self._linear()[1:], start=2):
            hidden = layer(hidden)
            if number < len(self.layers):
                hidden = torch.relu(hidden)
        acting = hidden + self.offset[1:].to(hidden.dtype)
        return torch.cat([torch.zeros_like(acting[..., :1]), acting], dim=-1)

    def indices(self, problem: Problem, state: np.ndarray | None = None) -> np.ndarray:
        """Indices of a cohort as float64: (N, S, A), or (N, A) at a state."""
        with torch.no_grad():
            features = self.features(problem)
            parts = []
            for begin in range(0, len(features), CHUNK):
                part = features[begin : begin + CHUNK]
                if state is None:
                    parts.append(self.table(part))
                else:
                    here = np.asarray(state, dtype=np.int64)[begin : begin + CHUNK]
                    parts.append(self.at(part, torch.as_tensor(here, device=part.device)))
            return torch.cat(parts).double().cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Write weights and description to a safetensors file; :func:`load_neural_index` reads it."""
        arrays = {key: np.ascontiguousarray(value.detach().cpu().numpy()) for key, value in self.state_dict().items()}
        write_atomically(path, save(arrays, {"neural_index": json.dumps(asdict(self.spec))}))

    def to_onnx(self, path: str | Path) -> None:
        """Write an ONNX graph: ``x`` (batch, F + S), raw features and one-hot state, to ``index`` (batch, A).

        Scaling, clipping and the passive action's zero are in the graph, so that other programs need nothing else.

        Raises
        ------
        CapabilityError
            When the package onnx is not installed.
        """
        try:
            import onnx
            from onnx import TensorProto, helper, numpy_helper
        except ImportError:
            raise CapabilityError(
                "writing ONNX", self, ("install rmab-opt[onnx]", "use save(), a safetensors file")
            ) from None
        spec = self.spec
        spread, centre = self.spread.cpu().numpy(), self.centre.cpu().numpy()
        scale = np.concatenate(
            [np.where(spread > 0, 1.0 / np.where(spread > 0, spread, 1.0), 0.0), np.ones(spec.n_states)]
        )
        shift = np.concatenate([centre, np.zeros(spec.n_states)])
        constants = {"centre": shift, "scale": scale, "low": np.array(-5.0), "high": np.array(5.0)}
        nodes = [
            helper.make_node("Sub", ["x", "centre"], ["moved"]),
            helper.make_node("Mul", ["moved", "scale"], ["scaled"]),
            helper.make_node("Clip", ["scaled", "low", "high"], ["h0"]),
        ]
        count = len(self.layers)
        for number, layer in enumerate(self._linear()):
            weight, bias = layer.weight.detach().cpu().double().numpy(), layer.bias.detach().cpu().double().numpy()
            if number == count - 1:
                # The passive action is a row of zeros.
                weight = np.concatenate([np.zeros((1, weight.shape[1])), weight])
                bias = np.concatenate([[0.0], bias + self.offset[1:].cpu().numpy()])
            constants |= {f"w{number}": weight, f"b{number}": bias}
            out = "index" if number == count - 1 else f"z{number}"
            nodes.append(helper.make_node("Gemm", [f"h{number}", f"w{number}", f"b{number}"], [out], transB=1))
            if number < count - 1:
                nodes.append(helper.make_node("Relu", [out], [f"h{number + 1}"]))
        graph = helper.make_graph(
            nodes,
            "neural_index",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", spec.n_features + spec.n_states])],
            [helper.make_tensor_value_info("index", TensorProto.FLOAT, ["batch", spec.n_actions])],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
        )
        document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="rmab-opt")
        document.ir_version = 8
        onnx.checker.check_model(document)
        write_atomically(path, document.SerializeToString())


def load_neural_index(path: str | Path) -> NeuralIndex:
    """A network that :meth:`NeuralIndex.save` or a run wrote.

    Raises
    ------
    ModelError
        When the file is missing, damaged or holds something else.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="np") as content:
            meta = content.metadata() or {}
            arrays = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read ({error})", "name a file that NeuralIndex.save wrote.") from None
    if "neural_index" in meta:
        document = json.loads(meta["neural_index"])
    elif "spec" in json.loads(meta.get("meta", "{}")):
        document = json.loads(meta["meta"])["spec"]
    else:
        raise ModelError(f"{path}: holds no neural index", "name a file that NeuralIndex.save wrote.")
    return _rebuild(document, arrays)


def _rebuild(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> NeuralIndex:
    lists = {"columns": tuple(document["columns"]), "hidden": tuple(document["hidden"])}
    network = NeuralIndex(_Spec(**{**document, **lists}))
    network.load_state_dict({key: torch.as_tensor(array) for key, array in arrays.items()})
    return network


# ---------------------------------------------------------------------------------------------------------------------
# Rounding


class Rounding:
    """The best allowed action for arm scores, exactly: by prices under plain budgets, by `decide` otherwise.

    Parameters
    ----------
    model
        Whose action set holds; its objective plays no part.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        effect = model.actions.columns.effect
        self._arm, self._level = effect.indices.astype(np.int64), np.rint(effect.data).astype(np.int64)
        self.n_actions = model.problem.dynamics.n_actions
        caps = model.actions.shape.caps
        self.budgets = caps if caps is not None and len(caps) == self.n_actions - 1 else None
        """Arms that may receive action 1 .. A - 1, when that is all the constraints say; else None."""
        plain = self.budgets
        self.coupling = _resources(model.actions, model.problem) if plain is None else Coupling.budgets(plain)

    @cached_property
    def chooser(self) -> Chooser:
        """The program that rounds where budgets are not all; compiled once."""
        model = self.model.by_nodes()
        nothing = Scores(np.zeros((model.problem.n_arms, self.n_actions)))
        return Chooser(model.problem, model.actions, nothing, model.solver, title=model.title)

    def arm_actions(self, scores: np.ndarray) -> np.ndarray:
        """Action of every arm, (N,), for scores (N, A); always allowed."""
        if self.budgets is not None:
            action = assign(scores, self.budgets).action
            used = np.bincount(action, minlength=self.n_actions)[1:]
            if (used > self.budgets).any():
                raise SolverError(f"rounding used {used.tolist()} of {self.budgets.tolist()}", "report these scores.")
            return action
        # The scores belong to the current states, whichever those are.
        made = self.decide(scores, np.zeros(len(scores), dtype=np.int64))
        return self.model.actions.columns.arm_action(made.action)

    def decide(self, scores: np.ndarray, state: np.ndarray, period: int = 0) -> Decision:
        """The allowed action with the largest sum of scores (N, A) at a state, certified."""
        return self.chooser.answer(self.chooser.question(state, period).about(Scores(scores)))


def _resources(actions: ActionSet, problem: Problem) -> Coupling | None:
    """The action set as resources with one price each, or None (rosters, routes, forbidden actions)."""
    return polyhedron(actions, problem.dynamics.n_actions).coupling(problem.n_arms, problem.dynamics.n_actions)


class NeuralIndexPolicy(ChooserPolicy):
    """Acts by a network's indices, rounded exactly.

    Parameters
    ----------
    model
        Cohort and constraints to act on: those of training or any others with the same states and actions.
    network
        From training or :func:`load_neural_index`.
    """

    def __init__(self, model: Model, network: NeuralIndex) -> None:
        self.network = network
        self.table = network.indices(model.problem)
        """Indices of the cohort, (N, S, A)."""
        chooser = Chooser(model.problem, model.actions, Scores(self.table), model.solver, title=model.title)
        super().__init__(chooser, "neural_index", model)

    @cached_property
    def rounding(self) -> Rounding:
        """Rounds scores without a decision around them, for simulations of whole tables."""
        return Rounding(self.model)


# ---------------------------------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True)
class NeuralRun:
    """A finished (or resumed and finished) training run.

    ``log`` holds rows ``step, loss, reward, price``; ``reward`` is the mean simulated total of the rounded policy.
    """

    folder: Path | None
    log: list[dict[str, Any]]
    network: NeuralIndex
    policy: NeuralIndexPolicy
    seconds: float

    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        digest = hashlib.sha256()
        for value in self.network.state_dict().values():
            digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
        return digest.hexdigest()


class _Trainer:
    """Everything that training changes; a step is a function of it, the seed and the step's number."""

    def __init__(self, model: Model, config: NeuralIndexConfig, seed: int, device: str) -> None:
        self.model, self.config, self.seed = model, config, seed
        self.device = torch.device(device)
        problem = model.problem
        self.n_arms, self.n_states = problem.n_arms, problem.dynamics.n_states
        self.rounding = Rounding(model)
        features = config.features
        if features == "auto":
            numbers = problem.dynamics.n_actions * self.n_states * (self.n_states + 1)
            features = "tables" if numbers <= MOST_TABLE_FEATURES else "summary"
        spec = _Spec(
            self.n_states,
            problem.dynamics.n_actions,
            features,
            config.columns,
            config.hidden,
            _raw_features(problem, features, config.columns).shape[1],
        )
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 0]).generate_state(1)[0]))
        self.network = NeuralIndex(spec, generator).to(self.device)
        self.network.learn_scale(problem)
        self.features = self.network.features(problem)
        self.loss = _LOSS[config.loss](self)
        self.layer = self._layer().to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.price = np.zeros(len(self.layer.limit))

    def _layer(self) -> Allocation:
        coupling, equal = self.rounding.coupling, self.config.masses == "equal"
        if coupling is None or coupling.cost.by_state:
            # Rosters and routes have no row of their own on the actions: the layer allots what the bound uses.
            found = self.loss.found
            if found is None or found.occupancy is None:
                raise CapabilityError(
                    "a roll-out loss under constraints with variables of their own",
                    self.model.actions,
                    ("use loss: tempered", "declare budgets"),
                )
            total = found.occupancy.sum()
            use = found.occupancy.sum(axis=(0, 1))[1:] / total * self.n_arms
            return Allocation.budgets(use, equal=equal, epsilon=self.config.epsilon)
        return Allocation.of_coupling(coupling, epsilon=self.config.epsilon, equal=equal)

    def advance(self) -> float:
        """One gradient step; returns the loss."""
        config = self.config
        factor = 0.01 + 0.495 * (1.0 + np.cos(np.pi * self.step / config.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * float(factor)
        rng = np.random.default_rng([self.seed, 1, self.step])
        loss = self.loss(rng)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def log_plan(self, state: np.ndarray) -> Tensor:
        """Log-plan at joint states (B, N), float64 (B, N, A), differentiable in the network."""
        table = self.network.table(self.features)
        arm = torch.arange(self.n_arms, device=self.device)
        index = table[arm, torch.as_tensor(state, device=self.device)]
        found, price = self.layer.solve(index)
        self.price = price.detach().mean(dim=0).cpu().numpy()
        return found

    def simulated(self, episodes: int) -> float | None:
        """Mean total reward of the rounded policy, common random numbers; None where rounding needs a program."""
        if not episodes or self.rounding.budgets is None:
            return None
        table = self.calibrated()
        return simulate_table(self.model, table, episodes, np.random.default_rng([self.seed, 2]), self.rounding).mean()

    def calibrated(self) -> np.ndarray:
        """The table with its gauge fixed; sets the network's offsets."""
        self.network.offset.zero_()
        table = self.network.indices(self.model.problem)
        offset = self.loss.offsets(table)
        self.network.offset.copy_(torch.tensor(offset))
        shifted = table + offset
        shifted[..., 0] = 0.0
        return shifted

    def save(self, folder: RunFolder) -> None:
        """Write log and checkpoint."""
        arrays = {f"network.{key}": _numpy(value) for key, value in self.network.state_dict().items()}
        for k, part in self.optimiser.state_dict()["state"].items():
            arrays |= {f"optimiser.{k}.{name}": _numpy(value) for name, value in part.items()}
        arrays |= {f"loss.{key}": value for key, value in self.loss.memory().items()}
        folder.write_log(self.log)
        folder.write_tensors("checkpoint", arrays, {"step": self.step, "logged": len(self.log)})

    def restore(self, folder: RunFolder) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        stored = folder.read_tensors("checkpoint")
        if stored is None:
            return
        arrays, meta = stored
        self.network.load_state_dict(
            {key: torch.as_tensor(arrays[f"network.{key}"]) for key in self.network.state_dict()}
        )
        entries: dict[int, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                entries.setdefault(int(number), {})[name] = torch.as_tensor(array)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": entries, "param_groups": groups})
        self.loss.recall({key.removeprefix("loss."): array for key, array in arrays.items() if key.startswith("loss.")})
        self.step = int(meta["step"])
        self.log = folder.read_log()[: int(meta["logged"])]


def _steady(problem: Problem) -> float:
    """Discount of the endless problem that stands for this horizon: its mean number of rounds left, capped at 0.99."""
    return min(problem.discount, 0.99, 1.0 - 2.0 / (problem.horizon + 2.0))


class _Target:
    """Losses towards a target choice in every state of every arm, from the decomposition of the discounted problem."""

    def __init__(self, trainer: _Trainer) -> None:
        self.trainer = trainer
        problem, config = trainer.model.problem, trainer.config
        require_tabular(problem.dynamics, f"loss {config.loss!r}")
        transition, reward = problem.dynamics.tabular()
        factor = _steady(problem)
        found: Bound = bound(problem, trainer.model.actions, kind="discounted", discount=factor, occupancy=True)
        assert found.occupancy is not None
        self.found: Bound | None = found
        q, _ = priced_action_values(transition, reward, found.arm_prices, discount=factor)
        self.gain = q[0] - q[0][..., :1]
        scale = float((reward.max(axis=(1, 2)) - reward.min(axis=(1, 2))).mean())
        self.temperature = max(1e-12, config.temperature * scale)
        marginal = found.occupancy.sum(axis=2)
        marginal = marginal / np.maximum(marginal.sum(axis=1, keepdims=True), 1e-300)
        mixed = (1.0 - config.uniform) * marginal + config.uniform / trainer.n_states
        self.cumulative = np.cumsum(mixed, axis=1)
        self.cumulative[:, -1] = 1.0
        target, weight = self.choice(found)
        self.target = torch.tensor(target, device=trainer.device)
        self.weight = torch.tensor(weight, device=trainer.device)
        entropy = np.where(target > 0, target * np.log(np.maximum(target, 1e-300)), 0.0).sum(axis=2)
        self.entropy = torch.tensor(entropy, device=trainer.device)

    def choice(self, found: Bound) -> tuple[np.ndarray, np.ndarray]:
        """Target probabilities (N, S, A) and the weight of each cell (N, S)."""
        raise NotImplementedError

    def __call__(self, rng: np.random.Generator) -> Tensor:
        """Mean distance of the plan from the target at random joint states."""
        trainer = self.trainer
        draw = rng.random((trainer.config.batch, trainer.n_arms))
        state = (draw[..., None] >= self.cumulative).sum(axis=-1)
        log_plan = trainer.log_plan(state)
        where = (torch.arange(trainer.n_arms, device=trainer.device), torch.as_tensor(state, device=trainer.device))
        target, weight = self.target[where], self.weight[where]
        # Actions that a limit of zero rules out have log-plan -inf; no sensible target asks for them.
        crossed = torch.where(torch.isfinite(log_plan), target * log_plan, torch.zeros_like(log_plan)).sum(dim=2)
        return ((self.entropy[where] - crossed) * weight).sum() / weight.sum().clamp(min=1.0)

    def offsets(self, table: np.ndarray) -> np.ndarray:
        """Constants (A,) that make an index positive where acting is worth something, as far as one number can.

        A limit that binds absorbs any constant, so training leaves it open; acting below upper limits needs it.
        """
        result = np.zeros(table.shape[2])
        for action in range(1, table.shape[2]):
            index, gain = table[..., action].ravel(), self.gain[..., action].ravel()
            useful = gain > -1e-9 * max(1.0, float(np.abs(gain).max()))
            if useful.all():
                # No evidence of harm anywhere: arms not seen yet get a margin too.
                result[action] = -index.min() + (index.max() - index.min())
                continue
            order = np.argsort(index, kind="stable")
            right = np.concatenate([[0], np.cumsum(np.where(useful[order], -1, 1))])
            cut = int(right.argmax())
            low = index[order[cut - 1]] if cut else index[order[0]] - 1.0
            high = index[order[cut]] if cut < len(order) else index[order[-1]] + 1.0
            result[action] = -0.5 * (low + high)
        return result

    def memory(self) -> dict[str, np.ndarray]:
        """Arrays that a checkpoint must keep."""
        return {}

    def recall(self, arrays: dict[str, np.ndarray]) -> None:
        """Take them back."""


class _Tempered(_Target):
    def choice(self, found: Bound) -> tuple[np.ndarray, np.ndarray]:
        """softmax((Q - price) / temperature): who would act at fair prices, with the ranking of those who would not."""
        logits = (self.gain - found.arm_prices[:, None, :]) / self.temperature
        logits = logits - logits.max(axis=2, keepdims=True)
        chance = np.exp(logits)
        return chance / chance.sum(axis=2, keepdims=True), np.ones(chance.shape[:2])


class _Occupancy(_Target):
    def choice(self, found: Bound) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the occupancy program; states that it never enters carry no weight, as published."""
        assert found.occupancy is not None
        total = found.occupancy.sum(axis=2, keepdims=True)
        seen = total[..., 0] > 1e-9
        return np.where(seen[..., None], found.occupancy / np.maximum(total, 1e-300), 0.0), seen.astype(float)


class _Rollout:
    """Reward of simulated rounds by the likelihood-ratio gradient; asks the dynamics for samples alone.

    Every action tried is allowed: the plan is perturbed and rounded exactly. Arms move independently given their
    actions, so each arm's own reward is its critic's business (a table over arm and state); how they compete is in the
    gradient of the allocation.
    """

    found: Bound | None = None
    decay = 0.9
    """Weight of later errors in an arm's advantage."""
    rate = 0.1
    """Step of the critic's table."""

    def __init__(self, trainer: _Trainer) -> None:
        self.trainer = trainer
        problem = trainer.model.problem
        self.discount = _steady(problem)
        rng = np.random.default_rng([trainer.seed, 3])
        self.state = np.stack([problem.sample_start(rng) for _ in range(trainer.config.batch)])
        self.critic = np.zeros((trainer.n_arms, trainer.n_states))
        self.bound = np.zeros(problem.dynamics.n_actions - 1)

    def __call__(self, rng: np.random.Generator) -> Tensor:
        trainer, config = self.trainer, self.trainer.config
        dynamics, arm = trainer.model.problem.dynamics, np.arange(trainer.n_arms)
        states, actions, rewards, following = [], [], [], []
        with torch.no_grad():
            table = trainer.network.table(trainer.features)
        for _ in range(config.rounds):
            # Rare states must be seen: now and then an arm starts anew anywhere.
            lost = rng.random(self.state.shape) < config.uniform / config.rounds
            self.state = np.where(lost, rng.integers(trainer.n_states, size=self.state.shape), self.state)
            with torch.no_grad():
                index = table[torch.as_tensor(arm), torch.as_tensor(self.state)]
                log_plan = trainer.layer.log_plan(index).cpu().numpy()
            noisy = np.maximum(log_plan, -700.0) + rng.gumbel(size=log_plan.shape)
            # Perturbed scores are compared within budgets used up to their limits, as the plan itself is.
            action = np.stack([trainer.rounding.arm_actions(scores - scores[:, :1]) for scores in noisy])
            moved, paid = dynamics.step(self.state, action, rng)
            states.append(self.state)
            actions.append(action)
            rewards.append(paid)
            following.append(moved)
            self.state = moved
        state, action, paid, after = (np.stack(part) for part in (states, actions, rewards, following))
        error = paid + self.discount * self.critic[arm, after] - self.critic[arm, state]
        advantage = np.empty_like(error)
        running = np.zeros_like(error[0])
        for t in range(config.rounds - 1, -1, -1):
            running = error[t] + self.discount * self.decay * running
            advantage[t] = running
        wanted, count = np.zeros_like(self.critic), np.zeros_like(self.critic)
        np.add.at(wanted, (np.broadcast_to(arm, state.shape), state), advantage)
        np.add.at(count, (np.broadcast_to(arm, state.shape), state), 1.0)
        self.critic += self.rate * wanted / np.maximum(count, 1.0)
        scaled = torch.as_tensor(advantage / max(advantage.std(), 1e-9), device=trainer.device)
        flat = (config.rounds * config.batch, trainer.n_arms)
        found = trainer.log_plan(state.reshape(flat))
        self.bound = np.maximum(0.9 * self.bound, np.resize(trainer.price, self.bound.shape))
        chosen = torch.gather(found, 2, torch.as_tensor(action.reshape(flat))[..., None])[..., 0].clamp(min=-700.0)
        return -(chosen * scaled.reshape(flat)).mean()

    def offsets(self, table: np.ndarray) -> np.ndarray:
        """Actions whose limit has bound in training are used in full: their indices become positive."""
        result = np.zeros(table.shape[2])
        for action in range(1, table.shape[2]):
            index = table[..., action]
            if self.bound[action - 1] > 0:
                result[action] = -index.min() + (index.max() - index.min())
        return result

    def memory(self) -> dict[str, np.ndarray]:
        return {"state": self.state, "critic": self.critic, "bound": self.bound}

    def recall(self, arrays: dict[str, np.ndarray]) -> None:
        self.state, self.critic, self.bound = arrays["state"], arrays["critic"].copy(), arrays["bound"].copy()


_LOSS: dict[str, Callable[[_Trainer], Any]] = {"tempered": _Tempered, "occupancy": _Occupancy, "rollout": _Rollout}


def train_neural_index(
    model: Model,
    config: NeuralIndexConfig | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "cpu",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> NeuralRun:
    """Train a neural index; resumes when the folder holds an unfinished run of the same settings.

    Parameters
    ----------
    model
        Cohort and constraints to train on; its own objective plays no part.
    config
        Hyper-parameters; by default those of the model's ``neural_index`` section.
    seed
        Of weights and states; the same seed gives the same run on the same device.
    out
        The run's folder; None keeps nothing.
    device
        ``cpu``, or ``cuda`` for the network and the allocation.
    on_event
        Called with ``{"step", "steps", ...}`` after every log row, for progress.

    Raises
    ------
    ModelError
        When the folder holds a run of another model, seed or configuration; names what differs.
    CapabilityError
        When a loss needs tables that the dynamics do not offer.
    """
    given = dict(model.settings.get("neural_index", {})) if config is None else None
    config = NeuralIndexConfig.from_mapping(given) if config is None and given is not None else config
    assert config is not None
    clock = perf_counter()
    folder = None if out is None else RunFolder(out)
    record: dict[str, Any] = {}
    if folder is not None:
        record = {
            "format": 1,
            "policy": "neural_index",
            "model": model.title,
            "fingerprint": fingerprint(model),
            "settings": dict(model.settings),
            "config": {**asdict(config), "hidden": list(config.hidden), "columns": list(config.columns)},
            "seed": seed,
        }
        _same_run(folder, json.loads(json.dumps(record)))
        folder.write_record({**record, "versions": versions(), "finished": False})
    threads = torch.get_num_threads()
    # One thread: sums in a fixed order, so that runs repeat.
    torch.set_num_threads(1)
    try:
        trainer = _Trainer(model, config, seed, device)
        if folder is not None:
            trainer.restore(folder)
        for row in _rows(trainer, folder):
            if on_event is not None:
                on_event({**row, "steps": config.steps})
        trainer.calibrated()
    finally:
        torch.set_num_threads(threads)
    network = trainer.network.cpu()
    if folder is not None:
        arrays = {key: _numpy(value) for key, value in network.state_dict().items()}
        meta = {"policy": "neural_index", "spec": asdict(network.spec), "config": record["config"]}
        folder.write_tensors("weights", arrays, meta)
        folder.write_log(trainer.log)
        seconds = round(perf_counter() - clock, 2)
        folder.write_record({**record, "versions": versions(), "finished": True, "seconds_of_last_start": seconds})
    path = None if folder is None else folder.path
    return NeuralRun(path, trainer.log, network, NeuralIndexPolicy(model, network), perf_counter() - clock)


def _rows(trainer: _Trainer, folder: RunFolder | None) -> Iterator[dict[str, Any]]:
    """The loop: step, log, save; one row every ``log_every`` steps and one at the end."""
    config, losses = trainer.config, []
    while trainer.step < config.steps:
        checkpoint()
        losses.append(trainer.advance())
        last = trainer.step == config.steps
        row = None
        if trainer.step % config.log_every == 0 or last:
            row = {
                "step": trainer.step,
                "loss": float(np.mean(losses)),
                "reward": trainer.simulated(config.log_episodes),
                "price": [round(float(price), 6) for price in trainer.price],
            }
            trainer.network.offset.zero_()
            trainer.log.append(row)
            losses = []
        # Losses between two log rows are not in a checkpoint, so a checkpoint waits for a row.
        if (
            folder is not None
            and row is not None
            and (trainer.step % config.checkpoint_every < config.log_every or last)
        ):
            trainer.save(folder)
        if row is not None:
            yield row


def load_run(folder: str | Path, model: Model) -> NeuralIndexPolicy:
    """The policy of a finished run for a model: its own or any cohort with the same states and actions.

    Raises
    ------
    ModelError
        When there are no weights in the folder, or they do not fit the cohort.
    """
    run = RunFolder(folder)
    stored = run.read_tensors("weights")
    if stored is None or stored[1].get("policy") != "neural_index":
        raise ModelError(f"{run.path}: holds no finished neural index", "train into this folder first.")
    return NeuralIndexPolicy(model, _rebuild(stored[1]["spec"], stored[0]))


def simulate_table(
    model: Model, table: np.ndarray, episodes: int, rng: np.random.Generator, rounding: Rounding | None = None
) -> np.ndarray:
    """Totals of expected rewards, (episodes,), of scores rounded exactly each round.

    Parameters
    ----------
    table
        (N, S, A), or (T, N, S, A) by round.
    rng
        Common to all tables that are compared: starts and moves are drawn in one order whatever is chosen.

    Raises
    ------
    SolverError
        When a rounded action broke a constraint; every one is checked.
    """
    problem = model.problem
    rounding = Rounding(model) if rounding is None else rounding
    state = problem.sample_start(rng, episodes)
    arm, total, weight = np.arange(problem.n_arms), np.zeros(episodes), 1.0
    for period in range(problem.horizon):
        here = table if table.ndim == 3 else table[min(period, len(table) - 1)]
        action = np.stack([rounding.arm_actions(here[arm, row]) for row in state])
        total += weight * problem.dynamics.expected_reward(state, action).sum(axis=1)
        state, _ = problem.dynamics.step(state, action, rng)
        weight *= problem.discount
    return total


def _same_run(folder: RunFolder, record: dict[str, Any]) -> None:
    found = folder.record
    if found is None:
        return
    for name in ("policy", "fingerprint", "config", "seed"):
        if found.get(name) != record[name]:
            raise ModelError(
                f"{folder.path}: holds a run with another {'model' if name == 'fingerprint' else name}",
                "name another folder, or repeat its settings.",
            )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
