"""A proof written out for other programs: rows, costs or network, prices and tree, with the digests they answer to.

``scripts/check_proof.py`` checks such a file with the standard library and numpy; ``docs/certificates.md`` says how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions.checker import Rows
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective
from rmab_opt.decisions.proof import Proof, layers_of, objective_rows, packed, rows_of_set
from rmab_opt.decisions.question import Question
from rmab_opt.decisions.saved import DecisionFile
from rmab_opt.decisions.scale import scaled

__all__ = ["export_proof"]


def export_proof(saved: DecisionFile, question: Question, path: str | Path | None = None) -> str:
    """The text of the file; written atomically when a path is given.

    Parameters
    ----------
    saved
        A decision that :func:`rmab_opt.decisions.verify` has verified.
    question
        What it answers, in its own unit of rewards.
    """
    from rmab_opt.records import write_atomically

    proof = saved.proof.proof()
    rows, objective, whose = _objective(question)
    document = {
        "format": 1,
        "what": "proof",
        "title": saved.title,
        "kind": proof.kind,
        "ids": list(saved.ids),
        "action": list(saved.action),
        "value": saved.value,
        "bound": saved.bound,
        "unit": saved.unit,
        "rows_of": whose,
        "rows": _rows(rows),
        "objective": objective,
        "prices": None if proof.prices is None else packed(proof.prices * saved.unit, "<f8"),
        "table": proof.table,
        "counted": proof.counted,
        "tree": None if proof.tree is None else packed(proof.tree, "<i2"),
        "target": _target(proof, question),
        "digests": {name: saved.digests[name] for name in ("rows", "objective")},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path is not None:
        write_atomically(Path(path), text)
    return text


def _target(proof: Proof, question: Question) -> float | None:
    """What the tree's leaves stay below, in reward units."""
    if proof.target is None:
        return None
    unit, _ = scaled(question)
    return proof.target * unit.size + unit.base


def _rows(rows: Rows) -> dict[str, Any]:
    return {
        "indptr": packed(rows.indptr, "<i8"),
        "indices": packed(rows.indices, "<i8"),
        "data": packed(rows.data, "<f8"),
        "row_lower": packed(rows.row_lower, "<f8"),
        "row_upper": packed(rows.row_upper, "<f8"),
        "lower": packed(rows.lower, "<f8"),
        "upper": packed(rows.upper, "<f8"),
        "whole": packed(rows.whole.astype(np.int64), "<i8"),
        "act": packed(rows.act, "<i8"),
    }


def _objective(question: Question) -> tuple[Rows, dict[str, Any], str]:
    """(rows, objective over them, whose rows they are)."""
    objective, situation = question.objective, question.situation
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        gain, base = objective.coefficients(situation)
        found = {"kind": "linear", "gain": packed(gain, "<f8"), "constant": float(base)}
        return rows_of_set(question.actions), found, "set"
    if isinstance(objective, NetworkObjective):
        net = layers_of(objective.network(situation))
        layers = [
            {
                "shape": list(weight.shape),
                "weight": packed(weight, "<f8"),
                "bias": packed(bias, "<f8"),
                "slope": packed(slope, "<f8"),
                "gain": packed(gain, "<f8"),
            }
            for weight, bias, slope, gain in zip(net.weight, net.bias, net.slope, net.gain, strict=True)
        ]
        readout, skip = packed(net.readout, "<f8"), packed(net.skip, "<f8")
        found = {"kind": "network", "layers": layers, "readout": readout, "skip": skip, "constant": net.constant}
        return rows_of_set(question.actions), found, "set"
    rows, cost, constant = objective_rows(question)
    return rows, {"kind": "program", "gain": packed(cost, "<f8"), "constant": constant}, "objective"
