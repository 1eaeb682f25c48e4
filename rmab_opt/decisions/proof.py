"""What a decision proves and how: made once beside the answer, stored in its file, checked again without a solver.

A proof holds prices, a tree, multipliers or the count of a list; the bound is always computed here, from these and the
model's rows, by :mod:`rmab_opt.actions.checker`, :mod:`rmab_opt.decisions.leaves` and
:mod:`rmab_opt.decisions.quadratics`. Nobody's claimed bound is read.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rmab_opt.actions import ActionSet
from rmab_opt.actions.checker import Rows, best_of_routes, count_rows, price_bound, table_rows
from rmab_opt.actions.labels import MOST_ROUNDS, Labels, proven
from rmab_opt.decisions.fitted import STEPS, fitted, prices_of, step_seconds
from rmab_opt.decisions.leaves import MOST_NODES, Closed, Layers, Leaves
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective
from rmab_opt.decisions.quadratics import Multipliers, limit, tangent
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.decisions.scale import Unit
from rmab_opt.encoder import Network
from rmab_opt.errors import CertificateError, LimitError, ModelError
from rmab_opt.solver import Program, Session

__all__ = [
    "FORMAT",
    "NONE",
    "Effort",
    "Proof",
    "ProofFile",
    "back",
    "layers_of",
    "objective_rows",
    "packed",
    "prove",
    "recheck",
    "rows_of",
    "rows_of_set",
    "sampled",
    "unpacked",
]

FORMAT: Literal[1] = 1

FEW_PRICES = 2000
"""Up to so many non-zero prices are stored in double precision."""

LONGEST_CHECK = 300.0
"""Seconds that a stored tree may take to check; the largest of the argmax benchmark takes 14 CPU seconds."""

OWN_SHARE = 0.6
"""Share of a proof's seconds and nodes for the search's own tree; other trees get the rest."""

FIRST_TURN = 100
"""Nodes after which a tree of columns hands over to one of neurons, four times as many each time."""

WIDE = 150
"""Neurons from which on a quadratic is tried: from so many on the search goes by quadratics where it is hard."""

QUADRATIC_SHARE = 0.4
"""Largest share of a proof's seconds that trees of wide networks leave to a quadratic."""

NODE = 2e-3
"""Seconds that a node counts as where nodes limit a proof: the steps of a quadratic then hang on no clock."""

SAMPLED = 64
"""Of many decisions by trees, one in so many is checked again."""

Kind = Literal["none", "prices", "table", "tree", "listing", "routes", "labels", "gains", "quadratic"]


@dataclass(frozen=True, eq=False)
class Proof:
    """A proven upper limit of every allowed action's value, and what proves it.

    Parameters
    ----------
    kind
        ``prices``: one a row, weak duality; ``table``: the same with one knapsack row, or it and a count, maximised
        exactly; ``tree``: columns and neurons branched on; ``listing``, ``routes``: complete lists, found again by
        enumeration; ``labels``: the best walks at prices of stops, found again; ``gains``: gains that only shrink,
        which is an assumption; ``quadratic``: a quadratic above a network, its tangent at prices, with ``table`` and
        ``counted`` as there; ``none``.
    bound
        In the objective's unit; infinite for ``none``.
    prices
        In units of the decision, one a row of the model's program, (m,).
    table
        Row that is maximised exactly.
    counted
        Row of a count that is maximised exactly together with ``table``.
    tree
        int16, level by level; see :mod:`rmab_opt.decisions.leaves`.
    target
        What every leaf of the tree stays below, in units of the decision, relative to choosing nothing.
    count
        Entries of a listing.
    labels
        Prices and memories of walks, in units of the decision.
    quadratic
        Multipliers, see :mod:`rmab_opt.decisions.quadratics`.
    leaves, seconds
        Of the tree; seconds that the proof took.
    """

    kind: Kind = "none"
    bound: float = np.inf
    prices: np.ndarray | None = None
    table: int | None = None
    tree: np.ndarray | None = None
    target: float | None = None
    count: int | None = None
    counted: int | None = None
    leaves: int = 0
    seconds: float = 0.0
    labels: Labels | None = None
    quadratic: Multipliers | None = None

    @property
    def tables(self) -> tuple[int, ...]:
        """Rows that are maximised exactly."""
        return tuple(row for row in (self.table, self.counted) if row is not None)

    @property
    def size(self) -> int:
        """Bytes that prices and tree take in a file, before the text around them."""
        file = self.file()
        parts = [file.prices, file.tree, file.walks, file.joined, file.tallied]
        parts += [file.neurons, file.bends, file.columns, file.implied]
        return sum(len(part) for part in parts if part is not None)

    def words(self) -> str:
        """By what it is proven."""
        if self.kind == "tree":
            return f"a tree of {self.leaves} {'leaf' if self.leaves == 1 else 'leaves'}"
        return {
            "prices": "prices",
            "table": "prices and a table",
            "listing": f"listing all {self.count}",
            "routes": f"listing {self.count} route{'s' * (self.count != 1)}",
            "labels": "prices of stops and the best walks at them",
            "quadratic": "a quadratic above the network" + (" and a table" if self.tables else ""),
            "gains": "gains that only shrink (an assumption)",
            "none": "nobody",
        }[self.kind]

    def file(self) -> ProofFile:
        """As a decision file holds it."""
        prices, places, number = None, None, "f8"
        if self.prices is not None:
            at = np.flatnonzero(self.prices).astype(np.int32)
            number = "f8" if len(at) <= FEW_PRICES else "f4"
            places, prices = packed(at, "<i4"), packed(self.prices[at], f"<{number}")
        labels, quadratic = self.labels, self.quadratic
        return ProofFile(
            format=1,
            kind=self.kind,
            proven_bound=float(self.bound) if np.isfinite(self.bound) else None,
            prices=prices,
            places=places,
            number=number,  # type: ignore[arg-type]
            rows=None if self.prices is None else len(self.prices),
            table=self.table,
            counted=self.counted,
            tree=None if self.tree is None else packed(self.tree, "<i2"),
            target=self.target if labels is None else labels.target,
            count=self.count,
            walks=None if labels is None else packed(labels.prices, "<f8"),
            joined=None if labels is None else packed(labels.joined, "<i2"),
            rounds=None if labels is None else len(labels.prices),
            tallied=None if labels is None or labels.counted is None else packed(labels.counted, "<i2"),
            listed=True if labels is not None and labels.listed else None,
            neurons=None if quadratic is None else packed(quadratic.neurons, "<f4"),
            bends=None if quadratic is None else packed(quadratic.bends, "<f4"),
            columns=None if quadratic is None else packed(quadratic.columns, "<f4"),
            implied=None if quadratic is None else packed(quadratic.implied, "<f8"),
        )


NONE = Proof()


MOST_ROWS = 10_000_000
"""More rows than any program has that was ever solved; a file that says more is no decision's."""


class ProofFile(BaseModel):
    """The proof in a decision file; unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1]
    kind: Kind
    proven_bound: float | None
    prices: str | None = None
    places: str | None = None
    number: Literal["f4", "f8"] = "f8"
    rows: int | None = Field(default=None, ge=0, lt=MOST_ROWS)
    table: int | None = Field(default=None, ge=0)
    counted: int | None = Field(default=None, ge=0)
    tree: str | None = None
    target: float | None = None
    count: int | None = Field(default=None, ge=0)
    walks: str | None = None
    joined: str | None = None
    rounds: int | None = Field(default=None, ge=0, le=MOST_ROUNDS)
    tallied: str | None = None
    listed: bool | None = None
    neurons: str | None = None
    bends: str | None = None
    columns: str | None = None
    implied: str | None = None

    def proof(self) -> Proof:
        """What it holds.

        Raises
        ------
        ModelError
            When a packed array is broken; names the field.
        """
        prices = None
        if self.prices is not None:
            places = unpacked(self.places or "", "<i4", "proof.places").astype(np.int64)
            numbers = unpacked(self.prices, f"<{self.number}", "proof.prices").astype(np.float64)
            rows = self.rows or 0
            if len(places) != len(numbers) or (len(places) and not (places.min() >= 0 and places.max() < rows)):
                raise ModelError("proof.places do not fit proof.prices", "give the file that `decide --out` wrote.")
            if not np.isfinite(numbers).all():
                raise ModelError("proof.prices hold NaN or infinity", "give the file that `decide --out` wrote.")
            prices = np.zeros(rows)
            prices[places] = numbers
        tree = None if self.tree is None else unpacked(self.tree, "<i2", "proof.tree").astype(np.int16)
        if tree is not None and (not len(tree) or len(tree) != 2 * int((tree >= 0).sum()) + 1):
            raise ModelError("proof.tree is no tree", "give the file that `decide --out` wrote.")
        bound = np.inf if self.proven_bound is None else self.proven_bound
        target = None if self.kind == "labels" else self.target
        return Proof(
            self.kind, bound, prices, self.table, tree, target, self.count, self.counted, labels=self._labels(),
            quadratic=self._quadratic(),
        )  # fmt: skip

    def _quadratic(self) -> Multipliers | None:
        if self.neurons is None or self.bends is None or self.columns is None or self.implied is None:
            return None

        def shaped(name: str, number: str, shape: tuple[int, int]) -> np.ndarray:
            flat = unpacked(getattr(self, name), number, f"proof.{name}").astype(np.float64)
            if not np.isfinite(flat).all():
                raise ModelError(f"proof.{name} hold NaN or infinity", "give the file that `decide --out` wrote.")
            if len(flat) % max(1, *shape) or (len(flat) and not all(shape)):
                raise ModelError(f"proof.{name} are cut off", "give the file that `decide --out` wrote.")
            return flat.reshape(shape) if len(flat) else np.zeros((max(0, shape[0]), max(0, shape[1])))

        return Multipliers(
            shaped("neurons", "<f4", (5, -1)),
            shaped("bends", "<f4", (3, -1)),
            shaped("columns", "<f4", (4, -1)),
            shaped("implied", "<f8", (-1, self.rows or 0)),
        )

    def _labels(self) -> Labels | None:
        if self.walks is None or self.joined is None or self.target is None:
            return None
        joined = unpacked(self.joined, "<i2", "proof.joined").astype(np.int16)
        prices = unpacked(self.walks, "<f8", "proof.walks").astype(np.float64)
        points, rounds = int(np.sqrt(len(joined))), self.rounds or 0
        each = len(prices) // rounds if rounds else points
        if points**2 != len(joined) or each < points or rounds * each != len(prices):
            raise ModelError("proof.walks do not fit proof.joined", "give the file that `decide --out` wrote.")
        shaped = prices.reshape(rounds, each), joined.reshape(points, points)
        counted = None if self.tallied is None else unpacked(self.tallied, "<i2", "proof.tallied").astype(np.int16)
        return Labels(*shaped, self.target, bool(self.listed), counted)


def packed(array: np.ndarray, number: str) -> str:
    """An array as base64 of zlib of its bytes, as numbers of a type such as ``<f8``."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype=number).tobytes(), 9)).decode()


LARGEST_PACK = 64_000_000
"""Bytes that a packed array may unfold to."""


def unpacked(text: str, number: str, field: str, fix: str = "give the file that `decide --out` wrote.") -> np.ndarray:
    """The array that :func:`packed` packed.

    Raises
    ------
    ModelError
        When it cannot be read; names the field.
    """
    try:
        unzip = zlib.decompressobj()
        raw = unzip.decompress(base64.b64decode(text, validate=True), LARGEST_PACK)
        if unzip.unconsumed_tail or not unzip.eof:
            raise ValueError("too long, or cut off")
        return np.frombuffer(raw, dtype=number)
    except (ValueError, zlib.error) as error:
        raise ModelError(f"{field} cannot be read ({error})", fix) from None


# ---- the set and the objective as the checker sees them
def rows_of(program: Program, act: np.ndarray) -> Rows:
    """A program's rows for the checker."""
    matrix = program.matrix
    return Rows(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int64),
        np.asarray(matrix.data, dtype=np.float64),
        program.row_lower,
        program.row_upper,
        program.lower,
        program.upper,
        program.integer,
        np.asarray(act, dtype=np.int64),
    )


_ROWS: dict[int, tuple[ActionSet, Rows]] = {}
"""Rows of the last sets that were proven about."""


def rows_of_set(actions: ActionSet) -> Rows:
    """The set's rows for the checker; kept for the last few sets."""
    found = _ROWS.get(id(actions))
    if found is None or found[0] is not actions:
        while len(_ROWS) >= 16:
            del _ROWS[next(iter(_ROWS))]
        found = _ROWS[id(actions)] = (actions, rows_of(*actions.program))
    return found[1]


def layers_of(network: Network) -> Layers:
    """A network's reduced arrays for the checker."""
    reduced = network.reduced.dense()
    parts = reduced.hidden
    return Layers(
        tuple(np.asarray(part.weight) for part in parts),
        tuple(part.bias for part in parts),
        tuple(part.slope for part in parts),
        tuple(part.gain for part in parts),
        reduced.readout,
        reduced.skip,
        float(reduced.constant),
    )


# ---- proving
@dataclass(frozen=True)
class Effort:
    """What lists and trees may take: seconds, none at 0, and nodes of trees; None for as many as the seconds allow."""

    seconds: float
    nodes: int | None = None


def prove(question: Question, proposal: Proposal, value: float, enough: float, effort: Effort) -> Proof:
    """The best bound that can be proven of a question's actions, tried until it is ``enough``.

    Parameters
    ----------
    question
        In its own unit; see :func:`rmab_opt.decisions.scale.scaled`.
    proposal
        Its ``data`` are looked at (``prices``, ``tree``), its bound is not.
    value
        Of the proposal's action, as recomputed, in the question's unit.
    enough
        The bound up to which the action counts as proven; nothing more is tried then.
    effort
        For what takes time: lists and trees.

    Returns
    -------
    Proof
        In the question's unit; of kind ``none`` when nothing was proven.

    Raises
    ------
    CertificateError
        When the tree meets an allowed action that is worth more than was claimed to be the most.
    """
    if not question.plain or proposal.proof == "none":
        return NONE
    began = perf_counter()
    if proposal.proof == "submodular":
        return Proof("gains", proposal.bound)
    objective = question.objective
    best = NONE
    linear = isinstance(objective, LinearObjective) and objective.linear(question.situation)
    tries: list[Callable[[], Proof]] = []
    if proposal.proof == "listing":
        tries += [lambda: _routes(question), lambda: _listing(question)]
    elif linear:
        tries += [lambda: _labelled(question, proposal.data.get("labels"))]
        tries += [lambda: _priced(question, proposal), lambda: _tabled(question, proposal)]
        tries += [lambda: _tabled(question, proposal, counted=True)]
        # Where routes went by labels, lists were too long, and checking one set of stops may take a minute.
        lists = effort.seconds > 0 and "labels" not in proposal.data
        tries += [lambda: _routes(question), lambda: _listing(question)] if lists else []
    elif isinstance(objective, NetworkObjective):
        if question.actions.__dict__.get("listed") is not None:
            tries.append(lambda: _listing(question))
        if effort.seconds > 0:
            tries += _above(question, proposal, enough, effort)
    else:
        tries.append(lambda: _priced(question, proposal))
        if "gains" in proposal.data:
            tries.append(lambda: Proof("gains", float(proposal.data["gains"])))
        tries += [lambda: _listing(question)] if effort.seconds > 0 else []
    for attempt in tries:
        found = attempt()
        best = found if found.bound < best.bound else best
        if best.bound <= enough:
            break
    return replace(best, seconds=perf_counter() - began)


def recheck(proof: Proof, question: Question) -> float:
    """The bound that a stored proof proves of a question in its own unit; infinite when it proves none.

    Raises
    ------
    LimitError
        When a tree was not followed to its end in time: nothing is proven then, and nothing refuted.
    """
    if proof.kind in ("prices", "table"):
        rows, cost, constant = objective_rows(question)
        if proof.prices is None or not _priceable(proof, rows):
            return np.inf
        return price_bound(rows, cost, constant, proof.prices, tables=proof.tables)
    if proof.kind == "quadratic":
        return _limit(proof, question)
    if proof.kind == "listing":
        return _listing(question, count=proof.count).bound
    if proof.kind == "routes":
        return _routes(question, count=proof.count).bound
    if proof.kind == "labels":
        return _labelled(question, proof.labels).bound
    if proof.kind == "tree" and proof.tree is not None and proof.target is not None:
        return _walk(proof, question)
    return np.inf


def _priceable(proof: Proof, rows: Rows) -> bool:
    """Whether there is a price a row, and rows that tables are made of are fit for them."""
    if proof.prices is None or len(proof.prices) != len(rows.row_lower):
        return False
    if proof.table is None:
        return proof.counted is None
    return proof.table in table_rows(rows) and (proof.counted is None or proof.counted in count_rows(rows, proof.table))


def _limit(proof: Proof, question: Question) -> float:
    """The bound of a stored quadratic."""
    objective, rows = question.objective, rows_of_set(question.actions)
    if proof.quadratic is None or proof.prices is None or not isinstance(objective, NetworkObjective):
        return np.inf
    if not _priceable(proof, rows):
        return np.inf
    layers = layers_of(objective.network(question.situation))
    return _hair(limit(layers, rows, proof.quadratic, proof.prices, tables=proof.tables))


def _walk(proof: Proof, question: Question) -> float:
    """The bound of a stored tree."""
    assert isinstance(question.objective, NetworkObjective)
    assert proof.tree is not None
    assert proof.target is not None
    leaves = _leaves(question, proof.prices)
    if int(proof.tree.max()) >= leaves.n + sum(leaves.sizes):
        return np.inf
    found = leaves.close(
        proof.target, question.actions.allows, proof.tree, seconds=LONGEST_CHECK, nodes=2 * len(proof.tree) + 512
    )
    if not found.ended and found.seconds >= LONGEST_CHECK:
        raise LimitError(
            f"the proof's tree was not followed to its end in {LONGEST_CHECK:g} s",
            "check it on a faster or less busy machine.",
        )
    return found.bound if found.better is None else np.inf


def objective_rows(
    question: Question, at_hand: tuple[Program, np.ndarray] | None = None
) -> tuple[Rows, np.ndarray, float]:
    """Rows, cost of every column, constant: of the set for linear objectives, else of the question's own program."""
    objective = question.objective
    if isinstance(objective, LinearObjective) and objective.linear(question.situation):
        rows = rows_of_set(question.actions)
        gain, base = objective.coefficients(question.situation)
        cost = np.zeros(len(rows.lower))
        cost[rows.act] = gain
        return rows, cost, float(base)
    program, act = _own_program(question) if at_hand is None else at_hand
    return rows_of(program, act), program.cost if program.maximise else -program.cost, program.offset


def _own_program(question: Question) -> tuple[Program, np.ndarray]:
    """The question's program, with the objective's own variables, read without a solver."""
    import pyomo.environ as pyo

    model = pyo.ConcreteModel()
    question.actions.build(model)
    model.objective_block = pyo.Block()
    expression = question.objective.build(model.objective_block, model.act, question.situation)
    model.objective = pyo.Objective(expr=expression, sense=pyo.maximize)
    session = Session(model, "fast", later=True)
    # A program that is kept between states takes their numbers as parameters: they are part of what is proven.
    for name, values in question.objective.update(question.situation).items():
        session.parameters[f"objective_block.{name}"] = values
    return session.program, np.asarray(session.index(model.act), dtype=np.int64)


def _priced(question: Question, proposal: Proposal) -> Proof:
    prices = proposal.data.get("prices")
    if prices is None:
        return NONE
    rows, cost, constant = objective_rows(question, proposal.data.get("program"))
    prices = np.asarray(prices, dtype=np.float64)
    if np.count_nonzero(prices) > FEW_PRICES:
        prices = prices.astype(np.float32).astype(np.float64)
    return Proof("prices", price_bound(rows, cost, constant, prices), prices)


def _tabled(question: Question, proposal: Proposal, *, counted: bool = False) -> Proof:
    """One knapsack row, or it and a count, maximised exactly; the others at their prices."""
    prices = proposal.data.get("prices")
    if prices is None:
        return NONE
    rows, cost, constant = objective_rows(question)
    prices, best = np.asarray(prices, dtype=np.float64), NONE
    for row in table_rows(rows)[:3]:
        if prices[row] != 0:
            beside = next((i for i in count_rows(rows, row) if prices[i] != 0), None) if counted else None
            found = Proof("table", prices=prices, table=row, counted=beside)
            bound = price_bound(rows, cost, constant, prices, tables=found.tables)
            best = replace(found, bound=bound) if bound < best.bound else best
    return best


def _listing(question: Question, count: int | None = None) -> Proof:
    """All allowed actions, valued; with ``count`` the list must be as long as it was."""
    listed = question.actions.listed
    if listed is None or not len(listed) or (count is not None and count != len(listed)):
        return NONE
    objective, situation = question.objective, question.situation
    if not objective.listable and len(listed) > 2000:
        return NONE
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        gain, base = objective.coefficients(situation)
        slack = float(4 * (len(gain) + 2) * np.finfo(float).eps * float(np.abs(gain).sum() + abs(base)))
        values = np.asarray(listed @ gain + base)
    else:
        values, slack = np.asarray(objective.batch_value(listed, situation)), 0.0
        if isinstance(objective, NetworkObjective):
            slack = 1e-12 * float(layers_of(objective.network(situation)).mass()[1])
    return Proof("listing", float(values.max()) + slack, count=len(listed))


def _routes(question: Question, count: int | None = None) -> Proof:
    """The best within each of all routes."""
    routes, objective = question.actions.routes, question.objective
    if routes is None or not isinstance(objective, LinearObjective) or not objective.linear(question.situation):
        return NONE
    if count is not None and count != len(routes.sets):
        return NONE
    gain, base = objective.coefficients(question.situation)
    bits = (routes.sets[:, None] >> np.arange(routes.n_columns, dtype=np.uint64)) & np.uint64(1)
    return Proof("routes", best_of_routes(bits == 1, gain, routes.most) + base, count=len(routes.sets))


def _labelled(question: Question, labels: Labels | None) -> Proof:
    """The best walks at stored prices of stops."""
    task, objective = question.actions.shape.orienteering, question.objective
    if labels is None or task is None:
        return NONE
    if not isinstance(objective, LinearObjective) or not objective.linear(question.situation):
        return NONE
    gain, base = objective.coefficients(question.situation)
    bound = proven(task, gain, labels)
    return Proof("labels", bound + base + 2 * float(np.finfo(float).eps) * abs(base), labels=labels)


def _leaves(question: Question, prices: np.ndarray | None) -> Leaves:
    assert isinstance(question.objective, NetworkObjective)
    rows = rows_of_set(question.actions)
    if prices is not None and len(prices) != len(rows.row_lower):
        prices = None
    return Leaves(layers_of(question.objective.network(question.situation)), rows, prices)


def _above(question: Question, proposal: Proposal, target: float, effort: Effort) -> list[Callable[[], Proof]]:
    """What proves a bound of a network: a tree, and where neurons are many a quadratic.

    The quadratic comes first where even the search left its gap open.
    """
    assert isinstance(question.objective, NetworkObjective)
    began, hidden = perf_counter(), question.objective.network(question.situation).reduced.hidden
    if sum(len(layer.bias) for layer in hidden) < WIDE:
        return [lambda: _tree(question, proposal, target, effort)]
    closed = proposal.status == "optimal"
    # Where a tree comes first, it leaves time for the quadratic: twice what the fit takes.
    step = step_seconds(len(question.actions), len(hidden[0].bias))
    kept = min(QUADRATIC_SHARE * effort.seconds, 2.0 * STEPS * step) if closed else 0.0
    steps = STEPS if effort.nodes is None else min(STEPS, int(effort.nodes * NODE / step))

    def left() -> float:
        return max(0.0, effort.seconds - (perf_counter() - began))

    tries = [
        lambda: _tree(question, proposal, target, replace(effort, seconds=left() - kept)) if left() > kept else NONE,
        lambda: _quadratic(question, left(), steps),
    ]
    return tries if closed else tries[::-1]


def _quadratic(question: Question, seconds: float, steps: int) -> Proof:
    """The search's fit over the whole set, as the checker sees it."""
    assert isinstance(question.objective, NetworkObjective)
    until = perf_counter() + seconds
    network, actions = question.objective.network(question.situation), question.actions
    layers, rows = layers_of(network), rows_of_set(actions)
    found = fitted(network, actions, layers, rows, seconds, steps)
    line = None if found is None else tangent(layers, rows, found)
    if found is None or line is None:
        return NONE
    prices = prices_of(actions, line[0], until - perf_counter())
    if np.count_nonzero(prices) > FEW_PRICES:
        prices = prices.astype(np.float32).astype(np.float64)
    plain = Proof("quadratic", prices=prices, quadratic=found)
    kinds = [plain, *(replace(plain, table=row) for row in table_rows(rows)[:1] if prices[row] != 0)]
    bounded = [replace(proof, bound=_limit(proof, question)) for proof in kinds]
    best = min(bounded, key=lambda proof: proof.bound)
    return best if np.isfinite(best.bound) else NONE


def _hair(bound: float) -> float:
    """A hair above, for sums that another machine orders otherwise."""
    return bound + 2e-10 * max(1.0, abs(bound)) if np.isfinite(bound) else np.inf


def _tree(question: Question, proposal: Proposal, target: float, effort: Effort) -> Proof:
    """A tree that closes at the target: the search's own, one of columns or one of neurons, whichever ends first.

    They take turns by nodes, not by the clock: which of them ends first is then the same at every repeat.
    """
    leaves = _leaves(question, proposal.data.get("prices"))
    allows = question.actions.allows
    own = proposal.data.get("tree")
    began, turn, kept = perf_counter(), FIRST_TURN, []
    nodes = MOST_NODES if effort.nodes is None else effort.nodes
    # The search's own tree is nearly always as small as the better of the two others: it comes first and longest.
    tries: list[tuple[np.ndarray | None, bool, int, float]] = []
    if own is not None:
        tries.append((own, True, max(1, round(OWN_SHARE * nodes)), OWN_SHARE * effort.seconds))
    while nodes > 0 and turn <= MOST_NODES and perf_counter() - began < effort.seconds:
        tries += [(None, False, turn, np.inf), (None, True, turn, np.inf)]
        for guide, neurons, most, longest in tries:
            left = effort.seconds - (perf_counter() - began)
            if left <= 0 or nodes <= 0:
                break
            most = min(most, nodes)
            found = leaves.close(target, allows, guide, neurons=neurons, seconds=min(longest, left), nodes=most)
            nodes -= most if effort.nodes is not None else 0
            if found.better is not None:
                raise CertificateError(
                    f"an allowed action is worth more than what was called the most ({target:.8g} in the proof's unit)",
                    "report this with the model file and the network; method 'program' may be right.",
                )
            kept.append(found)
            if found.whole or found.ended:
                return _grown(found, proposal)
        turn, tries = 4 * turn, []
    best = min(kept, key=lambda found: found.bound, default=None)
    if best is None or not np.isfinite(best.bound):
        return NONE
    return _grown(best, proposal)


def _grown(found: Closed, proposal: Proposal) -> Proof:
    """A tree's proof: its target lies a hair above its largest leaf, for sums that another machine orders otherwise."""
    target = _hair(found.bound)
    return Proof("tree", target, proposal.data.get("prices"), tree=found.tree, target=target, leaves=found.leaves)


def back(proof: Proof, unit: Unit) -> Proof:
    """A proof's bound in the objective's own unit; what proves it stays in the question's."""
    if not np.isfinite(proof.bound):
        return proof
    bound = proof.bound * unit.size + unit.base
    # The last sum is rounded outward as well.
    return replace(
        proof, bound=float(bound + 4 * np.finfo(float).eps * (abs(proof.bound) * unit.size + abs(unit.base)))
    )


def sampled(question: Question) -> bool:
    """Whether a decision among many is one of those that are checked again; depends on the question alone."""
    if not question.many or question.profile.name == "exact":
        return True
    text = question.state.tobytes() + repr((question.period, question.seed)).encode()
    return hashlib.sha256(text).digest()[0] % SAMPLED == 0
