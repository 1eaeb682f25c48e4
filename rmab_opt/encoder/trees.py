"""Ensembles of decision trees as arrays, their bounds, and their rows in a Pyomo model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.encoder.network import Judge, Network
from rmab_opt.errors import ModelError
from rmab_opt.solver import Program, Session
from rmab_opt.solver.encoded import Encoded

__all__ = ["Tree", "TreeEnsemble", "TreeRecord", "encode_trees"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

CUT_ROUNDS, CUT_VIOLATION = 8, 1e-6
"""Rounds of separation at the root, and the violation from which a row is added."""


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree; node 0 is its root, left where ``x[feature] <= threshold``, right elsewhere."""

    feature: Whole
    """Shape (nodes,); -1 at a leaf."""
    threshold: Floats
    left: Whole
    right: Whole
    value: Floats
    """Shape (nodes,), of the leaves."""

    @cached_property
    def boxes(self) -> tuple[Whole, list[dict[int, tuple[float, float]]]]:
        """Leaves, and feature -> (above, at most) of each: where a point falls into it."""
        leaves, boxes = [], []
        open_: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
        while open_:
            node, box = open_.pop()
            if self.feature[node] < 0:
                leaves.append(node)
                boxes.append(box)
                continue
            f, t = int(self.feature[node]), float(self.threshold[node])
            low, high = box.get(f, (-np.inf, np.inf))
            if t < high:
                open_.append((int(self.right[node]), box | {f: (max(low, t), high)}))
            else:
                open_.append((int(self.left[node]), box))
                continue
            if t > low:
                open_.append((int(self.left[node]), box | {f: (low, t)}))
        return np.array(leaves, dtype=np.int64), boxes

    def __call__(self, points: Floats) -> Floats:
        """Values of points (P, n)."""
        at = np.zeros(len(points), dtype=np.int64)
        while True:
            f = self.feature[at]
            inner = np.flatnonzero(f >= 0)
            if not inner.size:
                return self.value[at]
            node = at[inner]
            goes = points[inner, f[inner]] <= self.threshold[node]
            at[inner] = np.where(goes, self.left[node], self.right[node])


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """value = constant + sum of trees, over inputs in ``single`` or double precision.

    Raises
    ------
    ModelError
        When a threshold or value is not finite, or a node's number is out of range; names tree and node.

    Examples
    --------
    >>> stump = Tree(*map(np.array, ([0, -1, -1], [0.5, 0.0, 0.0], [1, 0, 0], [2, 0, 0], [0.0, 1.0, 3.0])))
    >>> TreeEnsemble((stump,), 2)([[0.2, 9.0], [0.7, 9.0]]).tolist()
    [1.0, 3.0]
    """

    trees: tuple[Tree, ...]
    n_inputs: int
    constant: float = 0.0
    single: bool = False
    """Whether the model rounds its inputs to float32 before it compares, as scikit-learn and XGBoost do."""
    judge: Judge | None = None
    """The prediction of the library it was read from, where there is one; pickling drops it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "judge": None}

    def __post_init__(self) -> None:
        if not np.isfinite(self.constant):
            raise ModelError(f"the ensemble's constant is {self.constant}", "train again.")
        for number, tree in enumerate(self.trees):
            inner = np.flatnonzero(tree.feature >= 0)
            if inner.size and not tree.feature.max() < self.n_inputs:
                raise ModelError(
                    f"tree {number} reads input {tree.feature.max()} of {self.n_inputs}", "give the model's own inputs."
                )
            for name, array in (("threshold", tree.threshold[inner]), ("value", tree.value[tree.feature < 0])):
                if not np.isfinite(array).all():
                    raise ModelError(f"tree {number} has a {name} that is not finite", "train again.")
            ends = np.concatenate([tree.left[inner], tree.right[inner]])
            # Children have larger numbers than their parents, so that no walk can go round.
            if inner.size and not ((ends > np.concatenate([inner, inner])) & (ends < len(tree.feature))).all():
                raise ModelError(f"tree {number} has children out of order", "number nodes from the root downwards.")

    def __call__(self, inputs: ArrayLike) -> Any:
        """Values of inputs (..., n), shape (...)."""
        x = np.asarray(inputs, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != self.n_inputs:
            raise ModelError(f"inputs have shape {x.shape}", f"give {self.n_inputs} numbers on the last axis.")
        flat = x.reshape(-1, self.n_inputs)
        flat = flat.astype(np.float32).astype(np.float64) if self.single else flat
        total = np.full(len(flat), self.constant)
        for tree in self.trees:
            total += tree(flat)
        value = total.reshape(x.shape[:-1])
        return float(value) if value.ndim == 0 else value

    @property
    def splits(self) -> dict[int, Floats]:
        """Input -> its thresholds in all trees, rising."""
        found: dict[int, set[float]] = {}
        for tree in self.trees:
            for f, t in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True):
                if f >= 0:
                    found.setdefault(f, set()).add(t)
        return {f: np.array(sorted(values)) for f, values in sorted(found.items())}

    def network(self) -> Network:
        """The same function of 0/1 inputs as a :class:`Network`: a neuron a leaf, one where all its splits agree.

        Usable wherever a network is, as the objective of decisions on 0/1 columns. Elsewhere than at 0 and 1 it is
        another function.
        """
        weight, bias, value, constant = [], [], [], self.constant
        for tree in self.trees:
            for leaf, box in zip(*tree.boxes, strict=True):
                if any(not self._reaches(ends, (0.0, 1.0)) for ends in box.values()):
                    continue
                row, count = np.zeros(self.n_inputs), 0
                for f, (low, high) in box.items():
                    if low < 0 and high >= 1:
                        continue
                    row[f], count = (1.0, count + 1) if low >= 0 else (-1.0, count)
                if not row.any():
                    constant += float(tree.value[leaf])
                    continue
                weight.append(row)
                bias.append(1.0 - count)
                value.append(float(tree.value[leaf]))
        if not weight:
            return Network.linear(np.zeros(self.n_inputs), constant)
        hidden = (np.array(weight), np.array(bias), "relu")
        return Network.from_arrays([hidden, (np.array(value)[None], np.array([constant]), "linear")])

    @staticmethod
    def _reaches(ends: tuple[float, float], points: Sequence[float]) -> bool:
        return any(ends[0] < point <= ends[1] for point in points)


@dataclass
class TreeRecord:
    """What :func:`encode_trees` added."""

    ensemble: TreeEnsemble
    block: Any
    leaves: int
    binaries: int
    rows: int
    cuts: int
    """Rows of pairs of splits that the relaxed optimum broke."""
    output: tuple[float, float]
    """Bounds of the value over the inputs' box."""
    variables: list[Any] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Leaves, binaries, rows and cuts."""
        return {"leaves": self.leaves, "binaries": self.binaries, "rows": self.rows, "cuts": self.cuts}

    def value(self, inputs: ArrayLike) -> Any:
        """The ensemble's own value."""
        return self.ensemble(inputs)

    def inside(self, inputs: ArrayLike, block: Any = None) -> Floats:
        """The point a solver gave, (n,), moved off the thresholds it stands on into the cells its binaries say.

        Rows hold the closure of every cell: at ``x == threshold`` they let the right side's value stand, while the
        model itself takes the left one. The move is one unit in the last place (of float32 where the model rounds).
        """
        import pyomo.environ as pyo

        point = np.array(inputs, dtype=np.float64)
        kind = np.float32 if self.ensemble.single else np.float64
        block = self.block if block is None else block
        for f, thresholds in self.ensemble.splits.items():
            near = 1e-6 * max(1.0, float(np.abs(thresholds).max()))
            for j, t in enumerate(thresholds.tolist()):
                if (f, j) not in block.below or abs(point[f] - t) > near:
                    continue
                sign = block.below[f, j]
                point[f] = t if pyo.value(sign) > 0.5 else float(np.nextafter(kind(t), kind(np.inf)))
                while kind(point[f]) <= t and pyo.value(sign) <= 0.5:
                    point[f] = float(np.nextafter(kind(point[f]), kind(np.inf)))
        return point

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"Encoding · {len(self.ensemble.trees)} trees\n"
            f"├ added       {counts['leaves']} leaves, {counts['binaries']} binary splits, {counts['rows']} rows\n"
            f"├ cuts        {counts['cuts']}\n"
            f"└ output      in [{self.output[0]:.6g}, {self.output[1]:.6g}]"
        )


def encode_trees(ensemble: TreeEnsemble, block: Any, inputs: Sequence[Any]) -> tuple[Any, TreeRecord, Encoded]:
    """Add an ensemble to a Pyomo block; the expression of its value, what was added, and what a session checks.

    One binary a distinct split of an input, ``below[f, j] = 1`` where x_f <= the j-th threshold; one variable a leaf.
    For every tree, input f and threshold t in it: the leaves that lie below t altogether sum to at most ``below``,
    those above to at most 1 - ``below``. This is the formulation of Misic, a tree's rows on one input taken together,
    which are as strong as or stronger than one row a node. Leaves of two trees that exclude each other are
    cut off as rows where the relaxed optimum breaks them.

    Parameters
    ----------
    inputs
        One Pyomo variable with finite bounds, or number, an input.

    Raises
    ------
    ModelError
        When inputs do not match or have no finite bounds.

    References
    ----------
    Misic (2020), Optimization of tree ensembles; Biggs and Perakis (2020) on tightness.
    """
    import pyomo.environ as pyo

    listed = list(inputs)
    if len(listed) != ensemble.n_inputs:
        raise ModelError(f"{len(listed)} inputs for {ensemble.n_inputs}", "give one an input, in the model's order.")
    low, high = _ends(listed)
    trees = [_Reach(tree, low, high) for tree in ensemble.trees]
    splits = {f: np.array([t for t in ts if low[f] <= t < high[f]]) for f, ts in ensemble.splits.items()}
    number = {(f, t): j for f, ts in ensemble.splits.items() for j, t in enumerate(ts.tolist())}
    block.below = pyo.Var([(f, number[f, t]) for f, ts in splits.items() for t in ts.tolist()], domain=pyo.Binary)
    block.leaf = pyo.Var([(k, i) for k, tree in enumerate(trees) for i in range(len(tree.value))], bounds=(0, 1))
    block.rows = pyo.ConstraintList()
    rows = _rows(trees, splits)
    for members, f, t, below in rows:
        total = sum(block.leaf[k, i] for k, i in members)
        sign = block.below[f, number[f, t]]
        block.rows.add(total <= (sign if below else 1 - sign))
    for k, tree in enumerate(trees):
        block.rows.add(sum(block.leaf[k, i] for i in range(len(tree.value))) == 1)
    _link(block, splits, number, listed, low, high)
    cuts = _cuts(ensemble, trees, splits, low, high)
    for pair in cuts:
        block.rows.add(sum(block.leaf[key] for key in pair) <= 1)
    output = ensemble.constant + sum(
        float(value) * block.leaf[k, i] for k, tree in enumerate(trees) for i, value in enumerate(tree.value)
    )
    ends = tuple(ensemble.constant + float(sum(pick(tree.value) for tree in trees)) for pick in (np.min, np.max))
    record = TreeRecord(
        ensemble, block, len(block.leaf), len(block.below), len(block.rows), len(cuts), (ends[0], ends[1])
    )
    record.variables = [*block.below.values(), *block.leaf.values()]
    terms = [(block.leaf[k, i], float(value)) for k, tree in enumerate(trees) for i, value in enumerate(tree.value)]
    return output, record, _promise(ensemble, block, listed, terms, low, high)


def _promise(
    ensemble: TreeEnsemble, block: Any, listed: list[Any], terms: list[tuple[Any, float]], low: Floats, high: Floats
) -> Encoded:
    """The value is constant on a cell: it, and the library's prediction, are asked in the middle of the cell."""
    at = [i for i, given in enumerate(listed) if not isinstance(given, int | float | np.number)]
    inputs = [listed[i] for i in at]
    cells = _Cells(
        ensemble,
        list(block.below),
        low,
        high,
        np.array([i in at and listed[i].is_integer() for i in range(len(listed))]),
    )

    def point(x: Floats) -> Floats:
        whole = low.copy()
        whole[at] = x
        return whole

    size = sum((float(np.abs(tree.value).max()) for tree in ensemble.trees), abs(ensemble.constant))
    judge = ensemble.judge

    def judged(x: Floats, signs: Floats) -> tuple[float, float]:
        assert judge is not None
        return float(judge.forward(cells.middle(point(x), signs)[None])[0]), judge.relative * max(1.0, size)

    return Encoded(
        name=block.name,
        sense="equal",
        inputs=inputs,
        lower=low[at],
        upper=high[at],
        whole=[variable.is_integer() for variable in inputs],
        terms=terms,
        constant=ensemble.constant,
        rows=list(block.rows.values()),
        signs=list(block.below.values()),
        reading=None,
        value=lambda x, signs: float(ensemble(cells.middle(point(x), signs))),
        judged=None if judge is None else judged,
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells that the splits of all trees cut the inputs' box into."""

    ensemble: TreeEnsemble
    below: list[tuple[int, int]]
    """(input, number of its threshold) a binary."""
    low: Floats
    high: Floats
    whole: NDArray[np.bool_]

    def middle(self, point: Floats, signs: Floats) -> Floats:
        """A point inside the cell that the binaries say, where that cell's closure holds the given point.

        Where it does not, the point itself stands, and the value there is the model's own.
        """
        low, high, splits = self.low.copy(), self.high.copy(), self.ensemble.splits
        for (f, j), sign in zip(self.below, signs.tolist(), strict=True):
            t = float(splits[f][j])
            if sign > 0.5:
                high[f] = min(high[f], t)
            else:
                low[f] = max(low[f], t)
        near = 1e-6 * np.maximum(1.0, np.maximum(np.abs(self.low), np.abs(self.high)))
        inside = (point >= low - near) & (point <= high + near)
        if not inside.all():
            return point
        return np.where(self.whole, np.rint(point), np.where(low < high, 0.5 * (low + high), point))


def _ends(listed: Sequence[Any]) -> tuple[Floats, Floats]:
    """Lower and upper ends of variables and numbers."""
    ends = []
    for i, given in enumerate(listed):
        if isinstance(given, int | float | np.number):
            ends.append((float(given), float(given)))
            continue
        if not (hasattr(given, "is_variable_type") and given.is_variable_type()):
            raise ModelError(f"input {i} is a {type(given).__name__}", "give a variable or a number.")
        if given.lb is None or given.ub is None:
            raise ModelError(f"{given.name} has bounds [{given.lb}, {given.ub}]", "give every input finite bounds.")
        ends.append((float(given.lb), float(given.ub)))
    array = np.array(ends)
    return array[:, 0], array[:, 1]


class _Reach:
    """The leaves of a tree that points of a box reach."""

    def __init__(self, tree: Tree, low: Floats, high: Floats) -> None:
        leaves, boxes = tree.boxes
        kept = [i for i, box in enumerate(boxes) if all(a < high[f] and low[f] <= b for f, (a, b) in box.items())]
        self.value = tree.value[leaves[kept]]
        self.boxes = [boxes[i] for i in kept]


def _rows(trees: list[_Reach], splits: dict[int, Floats]) -> list[tuple[list[tuple[int, int]], int, float, bool]]:
    """(leaves, input, threshold, whether they lie below it) of every row."""
    found = []
    for k, tree in enumerate(trees):
        used = {(f, end) for box in tree.boxes for f, ends in box.items() for end in ends if np.isfinite(end)}
        for f, t in sorted(used):
            if t not in splits[f]:
                continue
            under = [(k, i) for i, box in enumerate(tree.boxes) if box.get(f, (-np.inf, np.inf))[1] <= t]
            above = [(k, i) for i, box in enumerate(tree.boxes) if box.get(f, (-np.inf, np.inf))[0] >= t]
            found += [(members, f, t, side) for members, side in ((under, True), (above, False)) if members]
    return found


def _link(
    block: Any, splits: dict[int, Floats], number: dict[Any, int], listed: Any, low: Floats, high: Floats
) -> None:
    """Order of the splits of one input, and the input between those that hold and those that do not."""
    for f, thresholds in splits.items():
        signs = [block.below[f, number[f, t]] for t in thresholds.tolist()]
        for a, b in pairwise(signs):
            block.rows.add(a <= b)
        x = listed[f]
        if not signs:
            # No threshold lies strictly within the ends: a number, or an input that the trees do not tell apart.
            continue
        if x.is_integer():
            # Whole values lie at least one apart, so that the ends may be rounded inwards.
            thresholds = np.floor(thresholds)
        # x <= upper end of the first cell that holds; x >= the last threshold that does not.
        steps = np.append(thresholds, high[f])
        block.rows.add(
            x <= float(steps[-1]) - sum(float(steps[j + 1] - steps[j]) * sign for j, sign in enumerate(signs))
        )
        floor = thresholds + 1 if x.is_integer() else thresholds
        steps = np.concatenate([[low[f]], np.maximum(floor, low[f])])
        block.rows.add(
            x >= float(low[f]) + sum(float(steps[j + 1] - steps[j]) * (1 - sign) for j, sign in enumerate(signs))
        )


def _cuts(
    ensemble: TreeEnsemble, trees: list[_Reach], splits: dict[int, Floats], low: Floats, high: Floats
) -> list[list[tuple[int, int]]]:
    """Sets of leaves of two trees, any two of which exclude each other, that the relaxed optimum takes above one."""
    keys = [(k, i) for k, tree in enumerate(trees) for i in range(len(tree.value))]
    place = {key: j for j, key in enumerate(keys)}
    signs = {(f, t): len(keys) + j for j, (f, t) in enumerate((f, t) for f, ts in splits.items() for t in ts.tolist())}
    n = len(keys) + len(signs)
    entries, lower, upper = [], [], []
    for members, f, t, below in _rows(trees, splits):
        entries.append({place[key]: 1.0 for key in members} | {signs[f, t]: -1.0 if below else 1.0})
        lower.append(-np.inf)
        upper.append(0.0 if below else 1.0)
    for k, tree in enumerate(trees):
        entries.append({place[k, i]: 1.0 for i in range(len(tree.value))})
        lower.append(1.0)
        upper.append(1.0)
    for f, ts in splits.items():
        for a, b in pairwise(ts.tolist()):
            entries.append({signs[f, a]: 1.0, signs[f, b]: -1.0})
            lower.append(-np.inf)
            upper.append(0.0)
    cost = np.zeros(n)
    cost[: len(keys)] = np.concatenate([tree.value for tree in trees] or [np.zeros(0)])
    program = Program(
        cost=cost, matrix=_matrix(entries, n), row_lower=np.array(lower), row_upper=np.array(upper),
        lower=np.zeros(n), upper=np.ones(n), integer=np.zeros(n, dtype=bool), maximise=True,
    )  # fmt: skip
    if len(trees) < 2 or not signs:
        return []
    session = Session.from_arrays(program, "fast")
    found: list[list[tuple[int, int]]] = []
    for _ in range(CUT_ROUNDS):
        result = session.solve()
        if result.status != "optimal" or result.x is None:
            break
        new = _broken(trees, result.x, place)
        if not new:
            break
        found += new
        session.add_rows(_matrix([{place[key]: 1.0 for key in pair} for pair in new], n), -np.inf, np.ones(len(new)))
    return found


def _matrix(entries: list[dict[int, float]], n: int) -> sparse.csr_array:
    rows = np.repeat(np.arange(len(entries)), [len(entry) for entry in entries])
    columns = np.array([j for entry in entries for j in entry], dtype=np.int64)
    data = np.array([v for entry in entries for v in entry.values()])
    return sparse.csr_array((data, (rows, columns)), shape=(len(entries), n))


def _broken(trees: list[_Reach], x: Floats, place: dict[tuple[int, int], int]) -> list[list[tuple[int, int]]]:
    """For fractional leaves of one tree: it and all leaves of another tree that exclude it sum to at most one."""
    live = [[i for i in range(len(tree.value)) if x[place[k, i]] > 1e-6] for k, tree in enumerate(trees)]
    broken = []
    for k, tree in enumerate(trees):
        for i in live[k]:
            own = x[place[k, i]]
            if own > 1 - 1e-6:
                continue
            worst: tuple[float, list[tuple[int, int]]] = (1 + CUT_VIOLATION, [])
            for other in range(len(trees)):
                if other == k:
                    continue
                apart = [j for j in live[other] if _disjoint(tree.boxes[i], trees[other].boxes[j])]
                total = own + sum(x[place[other, j]] for j in apart)
                if total > worst[0]:
                    every = range(len(trees[other].value))
                    full = [(other, j) for j in every if _disjoint(tree.boxes[i], trees[other].boxes[j])]
                    worst = (total, [(k, i), *full])
            if worst[1]:
                broken.append(worst[1])
    return broken


def _disjoint(a: dict[int, tuple[float, float]], b: dict[int, tuple[float, float]]) -> bool:
    return any(f in b and (ends[1] <= b[f][0] or b[f][1] <= ends[0]) for f, ends in a.items())
