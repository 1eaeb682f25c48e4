"""What keeps people private: files that travel under pseudonyms, and one person erased without breaking a chain.

Pseudonyms are keyed digests: who has no key cannot find the person behind one by trying ids. An erasure puts a token in
place of an id wherever the programme's folder holds it, drops the person's cells, and seals the chains anew; the log of
erasures names the chains' ends before and after, so that an auditor who kept one can see why it changed.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.catalog import load
from rmab_opt.decisions import Chooser, Decision, Immediate, Model
from rmab_opt.decisions.certify import certify
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.decisions.saved import digests_of
from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest
from rmab_opt.programme.columns import week_file, week_number
from rmab_opt.programme.front_door import Plan, offered_of, saved_document
from rmab_opt.records import Entry, Log, json_text, write_atomically
from rmab_opt.report import workbook

__all__ = ["ERASED", "Erasure", "erase_files", "hide", "travelling"]

KEY = "pseudonyms.key"
"""Secret of a folder; it never travels, and only its owner can read it."""

ERASED = "erased-"
"""How the token begins that stands for an erased person."""

TABLES = ("cohort.csv", "transitions.csv", "start.csv", "closed.csv")
"""Tables of the model with ids."""

HIDDEN = "(not kept)"


class Erasure(Entry):
    """One person erased: the ends of the two chains before and after."""

    token: str
    week: int
    ledger_before: str
    ledger_after: str
    cohort_before: str
    cohort_after: str


def hide(text: str, private: frozenset[str]) -> str:
    """A text without cells that are private."""
    if text in private:
        return HIDDEN
    return " | ".join(HIDDEN if part in private else part for part in text.split(" | "))


# ----------------------------------------------------------------------------------------------------------- pseudonyms
def _key(folder: Path) -> bytes:
    path = folder / KEY
    if not path.is_file():
        write_atomically(path, secrets.token_hex(32) + "\n")
        os.chmod(path, 0o600)
    return bytes.fromhex(path.read_text(encoding="utf-8").strip())


def _pseudonym(key: bytes, name: str, kind: str = "p") -> str:
    return kind + hmac.new(key, f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:12]


def travelling(folder: Path, week: int) -> Path:
    """A folder with this week's model, list and certificate under pseudonyms, which a colleague can check.

    The list is the same list, proven anew for the pseudonymous model; no name, telephone or id is in it, and workers
    have pseudonyms too. The key stays behind.

    Raises
    ------
    ModelError
        When the folder holds no list of that week.
    """
    saved = folder / "weeks" / f"{week_file(week)}.json"
    if not saved.is_file():
        raise ModelError(f"{saved}: no such list", "make it with `rmab-opt start` or `next`.")
    key = _key(folder)
    out = folder / "travel" / week_file(week)
    if out.exists():
        shutil.rmtree(out)
    for name in TABLES:
        if (folder / name).is_file():
            write_atomically(
                out / name, _renamed(folder / name, {"id": lambda cell: _pseudonym(key, cell)}, ordered=True)
            )
    if (folder / "roster.csv").is_file():
        write_atomically(
            out / "roster.csv", _renamed(folder / "roster.csv", {"worker": lambda cell: _pseudonym(key, cell, "w")})
        )
    shutil.copy(folder / "model.yaml", out / "model.yaml")
    document = json.loads(saved.read_text(encoding="utf-8"))
    model = load(out)
    made, belief = _same_list(model, document, key)
    plan = Plan(str(document.get("policy", "")), "saved")
    text = json_text(saved_document(model, made, plan, belief)) + "\n"
    write_atomically(out / saved.name, text)
    made.to_csv(out / f"{week_file(week)}.csv")
    return out


def _same_list(model: Model, document: Mapping[str, Any], key: bytes) -> tuple[Decision, np.ndarray]:
    """The decision of a saved document under pseudonyms, certified for the pseudonymous model."""
    arms, columns = model.problem.arms, model.actions.columns
    state = np.zeros(model.problem.n_arms, dtype=np.int64)
    for name, value in zip(document["ids"], document["state"], strict=True):
        state[arms.index(_pseudonym(key, name))] = value
    belief = np.eye(model.problem.dynamics.n_states)[state]
    for name, chances in document.get("belief", {}).items():
        belief[arms.index(_pseudonym(key, name))] = chances
    question = _question(model, document, state, belief)
    chosen = {_pseudonym(key, name) for name in document["action"]}
    action = np.array([name in chosen for name in columns.ids], dtype=np.int64)
    chooser = Chooser(model.problem, model.actions, Immediate(), model.solver, many=False)
    again = chooser.answer(question)
    if set(again.chosen) != chosen:
        # Ties are broken by id: of the lists of one value the one that is carried out is proven.
        found = {"prices": again.proof.prices, "labels": again.proof.labels}
        data = {name: part for name, part in found.items() if part is not None}
        again = certify(question, Proposal(action, proof="dual", data=data, status="optimal", by=again.solver))
    return again, belief


def _question(model: Model, document: Mapping[str, Any], state: np.ndarray, belief: np.ndarray) -> Question:
    """What a saved decision answered, on a model of other names."""
    chooser = Chooser(model.problem, model.actions, Immediate(), model.solver, title=str(document["title"]), many=False)
    shared = model.problem.shared_array(document.get("shared", {}))
    question = chooser.question(state, int(document["period"]), shared=shared)
    plan = Plan(str(document.get("policy", "")), "saved")
    offered = offered_of(model, plan, question, belief if document.get("belief") else None)
    return offered if isinstance(offered, Question) else question


def _renamed(path: Path, change: Mapping[str, Callable[[str], str]], *, ordered: bool = False) -> str:
    text = path.read_text(encoding="utf-8")
    mark = text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    names = next(csv.reader(io.StringIO(text.removeprefix("\ufeff"))), [])
    for row in rows:
        for column, make in change.items():
            if row.get(column):
                row[column] = make(row[column])
    if ordered:
        rows.sort(key=lambda row: row["id"])
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return ("\ufeff" if mark else "") + out.getvalue()


# -------------------------------------------------------------------------------------------------------------- erasure
def erase_files(folder: Path, stage: Path, name: str, week: int) -> str:
    """Write every file that holds a person into ``stage`` without them; the token that stands for them.

    Raises
    ------
    ModelError
        When the folder never knew the id.
    """
    head = _head(folder / "cohort")
    if not _knows(folder, name):
        known = [row["id"] for row in csv.DictReader((folder / "names.csv").open(encoding="utf-8-sig"))]
        raise ModelError(f"{name!r} was never in this programme", nearest(name, known))
    number = len(Log(folder / "erasures", Erasure, stem="erasure")) + 1
    token = f"{ERASED}{number:03d}"

    def other(cell: str) -> str:
        return token if cell == name else cell

    for table in (*TABLES, "log.csv"):
        if (folder / table).is_file():
            write_atomically(stage / table, _renamed(folder / table, {"id": other}))
    for table in ("model.yaml", "roster.csv"):
        if (folder / table).is_file():
            shutil.copy(folder / table, stage / table)
    if (folder / "readings.csv").is_file():
        write_atomically(stage / "readings.csv", _renamed(folder / "readings.csv", {"was": other, "is": other}))
    _drop_rows(folder / "names.csv", stage / "names.csv", name)
    standing = json.loads((folder / "standing.json").read_text(encoding="utf-8"))
    standing["paused"].pop(name, None)
    write_atomically(stage / "standing.json", json_text(standing) + "\n")
    decisions = _erase_weeks(folder, stage, name, token, week)
    ledger = _head(folder / "ledger")
    first = standing["week"] - standing["period"]

    def sealed(document: dict[str, Any]) -> dict[str, Any]:
        document["attributes"].pop(token, None)
        if document.get("decision") and first + document["period"] in decisions:
            document["decision"] = decisions[first + document["period"]]
        return document

    def bare(document: dict[str, Any]) -> dict[str, Any]:
        document["attributes"].pop(token, None)
        return document

    _reseal(folder / "ledger", stage / "ledger", "round", name, token, sealed)
    _reseal(folder / "cohort", stage / "cohort", "member", name, token, bare)
    if (folder / "erasures").is_dir():
        shutil.copytree(folder / "erasures", stage / "erasures")
    Log(stage / "erasures", Erasure, stem="erasure").append(
        Erasure(
            format=1,
            token=token,
            week=week,
            ledger_before=ledger,
            ledger_after=_head(stage / "ledger"),
            cohort_before=head,
            cohort_after=_head(stage / "cohort"),
        )
    )
    return token


def _knows(folder: Path, name: str) -> bool:
    quoted = json.dumps(name, ensure_ascii=False)
    places = (*(folder / "cohort").glob("member-*.json"), *(folder / "ledger").glob("round-*.json"))
    return any(quoted in path.read_text(encoding="utf-8") for path in places)


def _drop_rows(source: Path, target: Path, name: str) -> None:
    text = source.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    at = rows[0].index("id")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(row for row in rows if row[at] != name)
    write_atomically(target, ("\ufeff" if text.startswith("\ufeff") else "") + out.getvalue())


def _erase_weeks(folder: Path, stage: Path, name: str, token: str, week: int) -> dict[int, str]:
    """Lists and certificates without the person; digests of the certificates by week."""
    cell = re.compile(rf"(?<=>){re.escape(name)}(?=<)")
    found: dict[int, str] = {}
    for path in sorted((folder / "weeks").iterdir()):
        target = stage / "weeks" / path.name
        if path.name.startswith("."):
            # Digests of whole files; those that are written now are noted anew.
            continue
        if path.suffix == ".csv":
            _drop_rows(path, target, name)
            rows = list(csv.reader(io.StringIO(target.read_text(encoding="utf-8-sig"))))
            if path.with_suffix(".xlsx").is_file():
                write_atomically(target.with_suffix(".xlsx"), workbook({"list": rows}))
        elif path.suffix == ".html":
            # A row that names the person goes whole: the cells beside the id name them too.
            text = re.sub(r"<tr>(?:(?!</tr>).)*?</tr>", lambda row: "" if cell.search(row[0]) else row[0],
                          path.read_text(encoding="utf-8"), flags=re.DOTALL)  # fmt: skip
            write_atomically(target, cell.sub(token, text))
        elif path.suffix == ".json":
            document = _swapped(json.loads(path.read_text(encoding="utf-8")), name, token)
            number = week_number(path.stem.removeprefix("week-"))
            assert number is not None
            if number == week:
                document["digests"] = _digests(load(stage), document)
            write_atomically(target, json_text(document) + "\n")
            found[number] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return found


def _digests(model: Model, document: Mapping[str, Any]) -> dict[str, str]:
    state = np.asarray(document["state"])
    belief = np.eye(model.problem.dynamics.n_states)[state]
    for name, chances in document.get("belief", {}).items():
        belief[model.problem.arms.index(name)] = chances
    return digests_of(_question(model, document, state, belief))


def _swapped(value: Any, name: str, token: str) -> Any:
    """Plain values with a token for the id, wherever it stands whole."""
    if isinstance(value, str):
        return token if value == name else value
    if isinstance(value, list):
        return [_swapped(part, name, token) for part in value]
    if isinstance(value, dict):
        return {_swapped(key, name, token): _swapped(part, name, token) for key, part in value.items()}
    return value


def _head(folder: Path) -> str:
    path = folder / "head.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["digest"]) if path.is_file() else ""


def _reseal(
    source: Path, target: Path, stem: str, name: str, token: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """A chained log without the person, every entry naming the digest of the one before it."""
    digest, count = "", 0
    for path in sorted(source.glob(f"{stem}-*.json")):
        document = change(_swapped(json.loads(path.read_text(encoding="utf-8")), name, token))
        document["previous"] = digest
        data = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        write_atomically(target / path.name, data, kept=True)
        digest, count = hashlib.sha256(data).hexdigest(), count + 1
    if count:
        head = {"format": 1, "count": count, "digest": digest, "pending": None}
        write_atomically(target / "head.json", json_text(head) + "\n", kept=True)
