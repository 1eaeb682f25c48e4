"""Every registered verb: what it writes is guarded, `--force` is there, and no input is ever written over."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import small_model
from command_line import run

from rmab_opt import registry

WRITES = {"out", "report", "export"}
"""Options that name a file or a folder to be written."""
READS = {
    "bound", "columns", "decision", "file", "folder", "ledger", "log", "name", "outcomes", "results", "roster", "run",
    "sheet", "state",
}  # fmt: skip
"""Options and arguments that name one to be read, or a folder of a record that is checked before it is written."""

TABLES = {
    **small_model.TABLES,
    "arms.csv": "id,type\np0,a\np1,a\np2,a\n",
    "log.csv": "id,week,called,listened\n"
    + "".join(f"p{n},{week},{'yes' if (n + week) % 3 else 'no'},{'yes' if (n * week) % 2 else 'no'}\n"
              for n in range(3) for week in range(1, 7)),
}  # fmt: skip

FILES = {
    "decide --out": (
        ["decide", "model.yaml", "--state", "state.csv", "--episodes", 0, "--out"],
        "list.csv",
        "state.csv",
    ),
    "decide --report": (["decide", "model.yaml", "--episodes", 0, "--report"], "page.html", None),
    "bound --out": (["bound", "model.yaml", "--out"], "bound.json", None),
    "check --export": (["check", "model.yaml", "--decision", "week.json", "--export-proof"], "proof.json", "week.json"),
    "compare --report": (["compare", "model.yaml", "--episodes", 0, "--report"], "side.html", "model.yaml"),
    "schema --out": (["schema", "--out"], "schema.json", None),
}
FOLDERS = {
    "evaluate --out": (
        ["evaluate", "model.yaml", "--policies", "none", "--episodes", 1, "--jobs", 1],
        "evaluation.csv",
    ),
    "bound --out": (["bound", "model.yaml", "--sweep", "weekly=1:1:1"], "bound.csv"),
    "train --out": (["train", "model.yaml"], "weights.safetensors"),
    "estimate --out": (["estimate", "log.csv", "--register", "arms.csv"], "estimate.json"),
    "start --out": (["start", "arms.csv", "--log", "log.csv", "--calls", 1, "--yes"], "anything.txt"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"model.yaml": small_model.MODEL, **TABLES}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_verb_that_writes_a_named_file_has_force_and_no_path_is_of_an_unknown_sort():
    covered = {case.split(" ")[0] for case in (*FILES, *FOLDERS)} | {"audit", "reproduce"}
    for entry in registry.entries("verb"):
        options = typing.get_type_hints(entry.make)
        paths = {name for name, hint in options.items() if "Path" in str(hint)}
        assert paths <= WRITES | READS, (entry.name, paths)
        if paths & WRITES:
            assert "force" in options, f"{entry.name} writes and has no --force"
            assert entry.setting or entry.name in covered, f"{entry.name} writes and stands in no case of this file"


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_ours_is_kept_without_force(folder, case):
    arguments, name, read = FILES[case]
    if "week.json" in arguments:
        assert run("decide", "model.yaml", "--episodes", 0, "--out", "week.json").code == 0
    place = folder / name
    place.write_text("mine", encoding="utf-8")
    told = run(*arguments, place)
    assert (told.code, place.read_text(encoding="utf-8")) == (2, "mine"), told.err
    assert "--force" in told.err
    assert run(*arguments, place, "--force").code == 0
    assert place.read_bytes() != b"mine"
    # What is ours is replaced without a word, and what is read never.
    assert run(*arguments, place).code == 0
    for other in {read, "model.yaml", "arms.csv"} - {None} if "model.yaml" in arguments else set():
        target = folder / other
        if target.suffix != place.suffix:
            # Most verbs ask for an ending first; a link has the one that is asked for.
            target = folder / f"link{place.suffix}"
            target.unlink(missing_ok=True)
            target.symlink_to(folder / other)
        before = target.read_bytes()
        assert run(*arguments, target, "--force").code == 2, other
        assert target.read_bytes() == before


@pytest.mark.parametrize("case", FOLDERS)
def test_a_strangers_file_in_a_folder_is_kept_without_force(folder, case):
    arguments, name = FOLDERS[case]
    out = folder / "out"
    out.mkdir()
    (out / name).write_text("mine", encoding="utf-8")
    told = run(*arguments, "--out", out)
    assert (told.code, (out / name).read_text(encoding="utf-8")) == (2, "mine"), told.err
    assert "--force" in told.err
    told = run(*arguments, "--out", out, "--force")
    assert told.code == 0, told.err
