"""Small breakages of the package, and whether the nearest tests notice: ``make mutants``.

    python scripts/mutants.py --draw          # write scripts/mutants.json anew; do it before tests are added
    python scripts/mutants.py                 # run all that have no result yet, then the share that was noticed
    python scripts/mutants.py --only oracle   # those whose name, file or operator holds the text
    python scripts/mutants.py --list

The drawn ones are a function of the seed and of the source tree, evenly by room. The checkout is never changed: each
worker breaks a copy of its own, and a result counts for as long as neither the module nor the tests change.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Queue
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
DRAWN = Path("scripts/mutants.json")
TABLES = Path("scripts/mutants_named.json")
RESULTS = Path("out/mutants.jsonl")
SEED, COUNT, SHARE = 20260713, 110, 0.95
SECONDS = 600.0
"""Longest a mutant's tests may take; three times what they take unbroken, where that is less."""

ROOMS = (
    "problem", "actions", "solver", "encoder", "search", "planning", "decisions", "learning", "settings/coupled",
    "settings/equity", "settings/inspection", "settings/networked", "settings/neural_index", "records", "programme",
    "catalog", "cli", "registry",
)  # fmt: skip

NEAREST = {
    "actions/kinds": ("tests/actions",),
    "catalog": ("tests/test_models.py", "tests/test_bad_input.py"),
    "cli": ("tests/cli", "tests/test_journeys.py", "tests/test_bad_input.py"),
    "registry": ("tests/test_registry.py", "tests/test_plugins.py", "tests/test_bad_input.py"),
    "solver": ("tests/solver", "tests/test_solver.py", "tests/test_profiles.py"),
}
"""Where the rule does not find a module's tests; what is not there is left out."""

COMPARED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "in": "not in"}
CALCULATED = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "*", "**": "*"}
TOKENS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.In: "in",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
}  # fmt: skip


class MutantError(Exception):
    """A table that no longer fits the tree, or tests that fail unbroken."""


@dataclass(frozen=True)
class Mutant:
    """One change: in ``file``, from ``line`` and ``column`` (bytes, from 0), ``token`` becomes ``instead``."""

    file: str
    line: int
    column: int
    operator: str
    old: str
    """The first line concerned, stripped."""
    new: str
    """The same line afterwards."""
    token: str
    instead: str
    tests: tuple[str, ...] = ()
    name: str = ""

    @property
    def key(self) -> str:
        return self.name or f"{self.file}:{self.line}:{self.column}:{self.operator}"

    def broken(self, text: str) -> str:
        """The module's text with the change in it."""
        lines = text.split("\n")
        before = sum(len(line.encode()) + 1 for line in lines[: self.line - 1]) + self.column
        raw, token = text.encode(), self.token.encode()
        if raw[before : before + len(token)] != token:
            raise MutantError(f"{self.key}: {self.token!r} no longer stands there; draw again with --draw")
        return (raw[:before] + self.instead.encode() + raw[before + len(token) :]).decode()


@dataclass
class _Finder(ast.NodeVisitor):
    """Sites of one module, in the order of the text."""

    file: str
    text: str
    found: list[Mutant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.raw = self.text.encode()
        self.starts = [0]
        for line in self.text.split("\n"):
            self.starts.append(self.starts[-1] + len(line.encode()) + 1)

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def add(self, start: int, end: int, operator: str, instead: str) -> None:
        line = max(k for k, first in enumerate(self.starts) if first <= start)
        column, token = start - self.starts[line], self.raw[start:end].decode()
        mutant = Mutant(self.file, line + 1, column, operator, self.lines(self.text, line), "", token, instead)
        new = self.lines(mutant.broken(self.text), line)
        self.found.append(Mutant(**{**asdict(mutant), "new": new, "tests": ()}))

    @staticmethod
    def lines(text: str, line: int) -> str:
        return text.split("\n")[line].strip()

    def between(self, left: ast.expr, right: ast.expr, op: ast.AST, swap: dict[str, str], operator: str) -> None:
        token = TOKENS.get(type(op))
        if token is None:
            return
        start = self.at(left.end_lineno or 0, left.end_col_offset or 0)
        end = self.at(right.lineno, right.col_offset)
        # Between two operands stand parentheses, blanks and notes beside the operator.
        between = re.sub(rb"#[^\n]*", lambda note: b" " * len(note[0]), self.raw[start:end])
        word = rb"\b" if token.isalpha() else b""
        hit = re.search(word + re.escape(token.encode()) + word, between)
        if hit is not None:
            self.add(start + hit.start(), start + hit.end(), operator, swap[token])

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self.between(left, right, op, COMPARED, "comparison")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        words = (ast.JoinedStr, ast.List, ast.Tuple)
        text = [isinstance(x, ast.Constant) and isinstance(x.value, str) for x in (node.left, node.right)]
        if not any(text) and not isinstance(node.left, words) and not isinstance(node.right, words):
            self.between(node.left, node.right, node.op, CALCULATED, "arithmetic")
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts:
            ends = [part.lower, part.upper] if isinstance(part, ast.Slice) else [part]
            for end in ends:
                number = end.operand if isinstance(end, ast.UnaryOp) and isinstance(end.op, ast.USub) else end
                if isinstance(number, ast.Constant) and type(number.value) is int:
                    start = self.at(number.lineno, number.col_offset)
                    stop = self.at(number.end_lineno or 0, number.end_col_offset or 0)
                    self.add(start, stop, "index", str(number.value + 1))
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is not None:
            start, end = self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)
            self.add(start, end, "raise", "pass")
        self.generic_visit(node)

    # Annotations say nothing at run time.
    def visit_arg(self, node: ast.arg) -> None:
        return

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in [*node.decorator_list, node.args, *node.body]:
            self.visit(child)


def sites(file: str, text: str) -> list[Mutant]:
    """All comparisons, calculations, whole-number indices and raises of a module."""
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    return sorted(finder.found, key=lambda m: (m.line, m.column, m.operator))


def room_of(file: str) -> str:
    """``rmab_opt/settings/equity/plan.py`` -> ``settings/equity``; ``rmab_opt/cli.py`` -> ``cli``."""
    parts = Path(file).with_suffix("").parts[1:]
    return "/".join(parts[:2]) if parts[0] == "settings" and len(parts) > 2 else parts[0]


def nearest(root: Path, file: str) -> tuple[str, ...]:
    """tests/<room>/test_<module>.py; else the table's; else all tests of the room, or tests/test_<room>.py."""
    room, module = room_of(file), Path(file).stem
    folders = Path(file).with_suffix("").parts[1:-1]
    exact = Path("tests", *folders, f"test_{module}.py")
    if (root / exact).is_file():
        return (exact.as_posix(),)
    for place in (Path(file).with_suffix("").relative_to("rmab_opt").as_posix(), "/".join(folders), room):
        found = tuple(name for name in NEAREST.get(place, ()) if (root / name).exists())
        if found:
            return found
    for name in (f"tests/{room}", f"tests/test_{room}.py"):
        if (root / name).exists():
            return (name,)
    raise MutantError(f"{file}: no tests are near; name some in NEAREST")


def draw(root: Path, seed: int = SEED, count: int = COUNT) -> list[Mutant]:
    """At least ``count`` sites, as many from every room as there are; a function of the seed and the tree."""
    by_room: dict[str, list[Mutant]] = {room: [] for room in ROOMS}
    for path in sorted((root / "rmab_opt").rglob("*.py")):
        file = path.relative_to(root).as_posix()
        if room_of(file) in by_room:
            by_room[room_of(file)] += sites(file, path.read_text(encoding="utf-8"))
    by_room = {room: found for room, found in by_room.items() if found}
    order = {}
    for room, found in by_room.items():
        order[room] = list(found)
        random.Random(f"{seed} {room}").shuffle(order[room])
    taken: list[Mutant] = []
    for turn in range(max((len(found) for found in order.values()), default=0)):
        if len(taken) >= count:
            break
        taken += [found[turn] for found in order.values() if turn < len(found)]
    return [Mutant(**{**asdict(m), "tests": nearest(root, m.file)}) for m in sorted(taken, key=lambda m: m.key)]


def drawn(root: Path) -> list[Mutant]:
    """Those of scripts/mutants.json; MutantError when the tree has moved on."""
    content = json.loads((root / DRAWN).read_text(encoding="utf-8")) if (root / DRAWN).exists() else []
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in content]


def named(root: Path) -> list[Mutant]:
    """Those of the table, wherever their text stands now.

    Raises
    ------
    MutantError
        When the old text of an entry stands nowhere, or in several places.
    """
    rows, found = json.loads((root / TABLES).read_text(encoding="utf-8"))["named"], []
    texts = {p.relative_to(root).as_posix(): p.read_text("utf-8") for p in sorted((root / "rmab_opt").rglob("*.py"))}
    for row in rows:
        hits = [file for file, text in texts.items() if row["old"] in text]
        file = row["file"] if row["file"] in hits else hits[0] if len(hits) == 1 else ""
        if not file or texts[file].count(row["old"]) != 1:
            places = ", ".join(f"{hit} ({texts[hit].count(row['old'])} times)" for hit in hits) or "no file"
            raise MutantError(f"{row['name']}: the text {row['old']!r} stands in {places}; repair it in {TABLES}")
        start = texts[file].index(row["old"])
        line = texts[file].count("\n", 0, start)
        column = len(texts[file][:start].rsplit("\n", 1)[-1].encode())
        # A table's tests may have moved with the module.
        tests = tuple(name for name in row["tests"] if (root / name).exists()) or nearest(root, file)
        old, new = row["old"].strip().split("\n")[0], row["new"].strip().split("\n")[0]
        found.append(Mutant(file, line + 1, column, "named", old, new, row["old"], row["new"], tests, row["name"]))
    return found


def equivalent(root: Path) -> dict[tuple[str, str, str], str]:
    """(file, old line, new line) -> why nothing can tell the two apart."""
    rows = json.loads((root / TABLES).read_text(encoding="utf-8"))["equivalent"]
    return {(row["file"], row["old"], row["new"]): row["reason"] for row in rows}


# ------------------------------------------------------------------------------------------------------------- running
def state_of(root: Path, mutant: Mutant) -> str:
    """What a result depends on: the module as it is and its tests."""
    digest = hashlib.sha256(f"{mutant.token} {mutant.instead}".encode())
    for name in (mutant.file, *mutant.tests):
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def tested(tree: Path, tests: tuple[str, ...], seconds: float) -> tuple[str, float]:
    """``passed``, ``failed`` or ``hang``, and how long it took."""
    environment = {
        **os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not gpu",
        *tests,
    ]
    began = perf_counter()
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        code = process.wait(timeout=seconds)
        word = "passed" if code == 0 else "failed"
    except subprocess.TimeoutExpired:
        word = "hang"
    finally:
        # Worker processes of the tests outlive them where the tests were broken.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return word, perf_counter() - began


def copied(root: Path, into: Path) -> Path:
    """A copy of the tree without what is made or installed."""
    skipped = shutil.ignore_patterns(
        ".git", ".venv", "out", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "site"
    )
    return Path(shutil.copytree(root, into, ignore=skipped))


def judge(tree: Path, mutant: Mutant, usual: dict[tuple[str, ...], float]) -> dict[str, object]:
    """Break the copy, run the tests, mend it."""
    if mutant.tests not in usual:
        word, seconds = tested(tree, mutant.tests, SECONDS)
        if word != "passed":
            raise MutantError(f"{mutant.key}: {' '.join(mutant.tests)} {word} unbroken; repair them first")
        usual[mutant.tests] = seconds
    path = tree / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutant.broken(whole), encoding="utf-8")
    try:
        word, seconds = tested(tree, mutant.tests, min(SECONDS, 30.0 + 3.0 * usual[mutant.tests]))
    finally:
        path.write_text(whole, encoding="utf-8")
    verdict = "survived" if word == "passed" else "killed"
    return {"verdict": verdict, "how": word, "seconds": round(seconds, 1)}


def run(root: Path, mutants: list[Mutant], workers: int) -> Iterator[tuple[Mutant, dict[str, object]]]:
    """Verdicts as they come; those already kept for this state of the tree come first."""
    kept_file = root / RESULTS
    kept_file.parent.mkdir(parents=True, exist_ok=True)
    lines = kept_file.read_text(encoding="utf-8").splitlines() if kept_file.exists() else []
    kept = {(row["key"], row["state"]): row for row in map(json.loads, lines)}
    excused, left = equivalent(root), []
    for mutant in mutants:
        reason = excused.get((mutant.file, mutant.old, mutant.new))
        known = kept.get((mutant.key, state_of(root, mutant)))
        if reason is not None:
            yield mutant, {"verdict": "equivalent", "how": reason, "seconds": 0.0}
        elif known is not None:
            yield mutant, known
        else:
            left.append(mutant)
    if not left:
        return
    usual: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        trees: Queue[Path] = Queue()
        for number in range(workers):
            trees.put(copied(root, Path(folder) / str(number)))

        def one(mutant: Mutant) -> tuple[Mutant, dict[str, object]]:
            tree = trees.get()
            try:
                return mutant, judge(tree, mutant, usual)
            finally:
                trees.put(tree)

        for mutant, verdict in pool.map(one, sorted(left, key=lambda m: m.tests)):
            row = {"key": mutant.key, "state": state_of(root, mutant), **verdict}
            with kept_file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            yield mutant, verdict


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draw", action="store_true", help="write the drawn mutants anew")
    parser.add_argument("--seed", type=int, default=SEED, help="of the draw")
    parser.add_argument("--count", type=int, default=COUNT, help="drawn at least")
    parser.add_argument("--list", action="store_true", help="print them and stop")
    parser.add_argument("--only", default="", help="those whose key, operator or old text holds this")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    try:
        if given.draw:
            rows = [asdict(mutant) for mutant in draw(root, given.seed, given.count)]
            (root / DRAWN).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{len(rows)} drawn into {DRAWN}")
            return 0
        mutants = [m for m in named(root) + drawn(root) if any(given.only in x for x in (m.key, m.operator, m.old))]
        for mutant in mutants:
            mutant.broken((root / mutant.file).read_text(encoding="utf-8"))
        if given.list:
            for mutant in mutants:
                print(f"{mutant.key}\n  - {mutant.old}\n  + {mutant.new}\n  {' '.join(mutant.tests)}")
            return 0
        count = {"killed": 0, "survived": 0, "equivalent": 0}
        for mutant, verdict in run(root, mutants, given.workers):
            count[str(verdict["verdict"])] += 1
            print(f"{verdict['verdict']:<10} {mutant.key}  ({verdict['how']}, {verdict['seconds']} s)", flush=True)
            if verdict["verdict"] == "survived":
                print(f"  - {mutant.old}\n  + {mutant.new}\n  {' '.join(mutant.tests)}", flush=True)
    except MutantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    judged = count["killed"] + count["survived"]
    share = count["killed"] / judged if judged else 1.0
    print(f"{count['killed']} of {judged} killed ({share:.1%}), {count['equivalent']} equivalent")
    return 0 if share >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
