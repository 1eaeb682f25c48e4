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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Queue
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
DRAWN = Path("scripts/mutants.json")
TABLES = Path("scripts/mutants_named.json")
RESULTS = Path("out/mutants.jsonl")
SEED, COUNT, SHARE = 20261128, 110, 0.95
SECONDS = 900.0
"""Longest a mutant's tests may take: beyond it they hang."""

ROOMS = (
    "problem", "actions", "solver", "encoder", "search", "planning", "decisions", "learning", "settings/coupled",
    "settings/equity", "settings/inspection", "settings/networked", "settings/neural_index", "records", "programme",
    "catalog", "cli", "registry",
)  # fmt: skip

NEAREST = {
    "actions/kinds": ("tests/actions",),
    "catalog": ("tests/catalog", "tests/test_models.py", "tests/test_bad_input.py"),
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

    @property
    def what(self) -> str:
        """The change wherever it stands."""
        return f"{self.file}: {self.old} -> {self.new}"

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
    """Those of scripts/mutants.json, wherever their line stands now.

    Raises
    ------
    MutantError
        When the line of an entry has gone or changed.
    """
    rows = json.loads((root / DRAWN).read_text(encoding="utf-8")) if (root / DRAWN).exists() else []
    return [_followed(root, Mutant(**{**row, "tests": tuple(row["tests"])})) for row in rows]


def _followed(root: Path, mutant: Mutant) -> Mutant:
    """The mutant at the nearest line of its file that reads as its own did, with the tests that are near today."""
    path, changed = root / mutant.file, []
    for site in sites(mutant.file, path.read_text(encoding="utf-8")) if path.exists() else []:
        same = ("operator", "old", "new", "token", "instead")
        if all(getattr(site, name) == getattr(mutant, name) for name in same):
            changed.append(site)
    if not changed:
        raise MutantError(f"{mutant.key}: {mutant.old!r} no longer stands there; repair it in {DRAWN}")
    found = min(changed, key=lambda site: (abs(site.line - mutant.line), site.column))
    return replace(found, tests=nearest(root, mutant.file))


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


def tested(tree: Path, tests: tuple[str, ...], seconds: float) -> tuple[str, float, str]:
    """``passed``, ``failed`` or ``hang``, how long it took, and the test that failed."""
    environment = {
        **os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    options = ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    began = perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=tree,
            env=environment,
            stdout=said,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
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
        said.seek(0)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said.read(), flags=re.MULTILINE)
    return word, perf_counter() - began, failed[0] if failed else ""


def copied(root: Path, into: Path) -> Path:
    """A copy of the tree without what is made or installed."""
    skipped = shutil.ignore_patterns(
        ".git", ".venv", "out", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "site"
    )
    return Path(shutil.copytree(root, into, ignore=skipped))


def ordered(root: Path, mutant: Mutant, first: str = "") -> tuple[str, ...]:
    """Its test files: the one that noticed it before, then those that name its module most often."""
    files: dict[str, int] = {}
    for name in mutant.tests:
        path = root / name
        for file in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
            known = file.relative_to(root).as_posix()
            files[known] = len(re.findall(rf"\b{Path(mutant.file).stem}\b", file.read_text(encoding="utf-8")))
    return tuple(sorted(files, key=lambda name: (name != first, -files[name], name)))


def judge(tree: Path, mutant: Mutant, tests: tuple[str, ...], sound: set[str]) -> dict[str, object]:
    """Break the copy, run the tests, mend it.

    A test that fails kills when it passes unbroken; ``sound`` remembers those that do.

    Raises
    ------
    MutantError
        When it does not.
    """
    path = tree / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutant.broken(whole), encoding="utf-8")
    try:
        word, seconds, by = tested(tree, tests, SECONDS)
    finally:
        path.write_text(whole, encoding="utf-8")
    # All of its cases: a case's name may hold blanks. Where nothing was named, all tests.
    name = by.split("[")[0]
    if word != "passed" and name not in sound:
        unbroken, _, failed = tested(tree, (name,) if name else tests, SECONDS)
        if unbroken != "passed":
            raise MutantError(f"{name or ' '.join(tests)} {unbroken} unbroken: {failed}; repair it first")
        sound.add(name)
    verdict = "survived" if word == "passed" else "killed"
    return {"verdict": verdict, "how": word, "seconds": round(seconds, 1), "by": by}


def run(root: Path, mutants: list[Mutant], workers: int) -> Iterator[tuple[Mutant, dict[str, object]]]:
    """Verdicts as they come; those already kept for this state of the tree come first.

    Mutants with the same tests are one task.
    """
    kept_file = root / RESULTS
    kept_file.parent.mkdir(parents=True, exist_ok=True)
    lines = kept_file.read_text(encoding="utf-8").splitlines() if kept_file.exists() else []
    kept, before = {}, {}
    for row in map(json.loads, lines):
        kept[row["key"], row["state"]] = row
        before[row.get("what", row["key"])] = str(row["by"]).split("::")[0]
    excused, left = equivalent(root), dict[tuple[str, ...], list[Mutant]]()
    for mutant in mutants:
        reason = excused.get((mutant.file, mutant.old, mutant.new))
        known = kept.get((mutant.key, state_of(root, mutant)))
        if reason is not None:
            yield mutant, {"verdict": "equivalent", "how": reason, "seconds": 0.0, "by": ""}
        elif known is not None:
            yield mutant, known
        else:
            left.setdefault(mutant.tests, []).append(mutant)
    said: Queue[tuple[Mutant, dict[str, object]] | None] = Queue()

    def group(tests: tuple[str, ...]) -> None:
        tree = trees.get()
        try:
            sound: set[str] = set()
            for mutant in left[tests]:
                order = ordered(root, mutant, before.get(mutant.what, before.get(mutant.key, "")))
                said.put((mutant, judge(tree, mutant, order, sound)))
        finally:
            trees.put(tree)
            said.put(None)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        trees: Queue[Path] = Queue()
        for number in range(workers if left else 0):
            trees.put(copied(root, Path(folder) / str(number)))
        states = {mutant.key: state_of(root, mutant) for mutants_ in left.values() for mutant in mutants_}
        # What was never judged first, and of it one file's tests: they are the quick ones.
        known = {
            tests for tests, group_ in left.items() if any({mutant.what, mutant.key} & set(before) for mutant in group_)
        }
        order_ = sorted(left, key=lambda tests: (tests in known, not tests[0].endswith(".py"), tests))
        tasks = [pool.submit(group, tests) for tests in order_]
        for _ in tasks:
            while (answer := said.get()) is not None:
                mutant, verdict = answer
                with kept_file.open("a", encoding="utf-8") as out:
                    out.write(
                        json.dumps({"key": mutant.key, "what": mutant.what, "state": states[mutant.key], **verdict})
                        + "\n"
                    )
                yield mutant, verdict
        for task in tasks:
            task.result()


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
        count = {room: dict.fromkeys(("killed", "survived", "equivalent"), 0) for room in ROOMS}
        for mutant, verdict in run(root, mutants, given.workers):
            word = str(verdict["verdict"])
            count[room_of(mutant.file)][word] += 1
            print(f"{word:<10} {mutant.key}  ({verdict['how']}, {verdict['seconds']} s) {verdict['by']}", flush=True)
            if word == "survived":
                print(f"  - {mutant.old}\n  + {mutant.new}\n  {' '.join(mutant.tests)}", flush=True)
    except MutantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    return _summed(count)


def _summed(count: dict[str, dict[str, int]]) -> int:
    """Print the table by room; 0 where enough was killed."""
    print("\n| room | killed | survived | equivalent |\n|---|---:|---:|---:|")
    for room, row in count.items():
        if any(row.values()):
            print(f"| {room} | {row['killed']} | {row['survived']} | {row['equivalent']} |")
    killed, survived, excused = (
        sum(row[word] for row in count.values()) for word in ("killed", "survived", "equivalent")
    )
    share = killed / (killed + survived) if killed + survived else 1.0
    print(f"\n{killed} of {killed + survived} killed ({share:.1%}), {excused} equivalent")
    return 0 if share >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
