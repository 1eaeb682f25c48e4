"""What verbs write: never over what they read, never over a stranger's file without --force, and their own again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import run

from rmab_opt.errors import ModelError
from rmab_opt.records import allow, keep_safe, safe, write_atomically
from rmab_opt.records.files import SIGNATURE, is_ours


def test_nothing_is_written_over_what_a_verb_reads_by_whatever_name(tmp_path: Path):
    read, linked = tmp_path / "read.csv", tmp_path / "linked.csv"
    read.write_text("id\n1\n", encoding="utf-8")
    os.link(read, linked)
    (tmp_path / "soft.csv").symlink_to(read)
    with safe():
        keep_safe([read, None, tmp_path / "missing"])
        for name in ("read.csv", "linked.csv", "soft.csv"):
            with pytest.raises(ModelError, match=f"{name}: the model is made of this file"):
                write_atomically(tmp_path / name, "lost")
        write_atomically(tmp_path / "other.csv", "kept")
    assert read.read_text(encoding="utf-8") == "id\n1\n"
    write_atomically(read, "after")


def test_what_a_verb_wrote_is_ours_until_somebody_changes_it(tmp_path: Path):
    ours, foreign = tmp_path / "a.csv", tmp_path / "b.csv"
    foreign.write_text("x,y\n1,2\n", encoding="utf-8")
    with safe():
        write_atomically(ours, "x,y\n1,2\n")
        write_atomically(ours, "x,y\n1,9\n")
        with pytest.raises(ModelError, match=r"b\.csv: is there already"):
            write_atomically(foreign, "lost")
    assert is_ours(ours)
    assert not is_ours(foreign)
    # Stopped between the note and the file: the old content is ours too.
    ours.write_text("x,y\n1,2\n", encoding="utf-8")
    assert is_ours(ours)
    ours.write_text("x,y\n1,3\n", encoding="utf-8")
    assert not is_ours(ours)
    with safe():
        allow(True)
        write_atomically(foreign, "replaced")
    assert foreign.read_text(encoding="utf-8") == "replaced"
    for spoilt in ("[]", '{"sha256": 3}', "{", "[" * 100_000, ""):
        (tmp_path / SIGNATURE).write_text(spoilt, encoding="utf-8")
        assert not is_ours(foreign)


VERBS = [
    (("evaluate", "budget", "--policies", "none,random", "--episodes", 2, "--no-bound"), "evaluation.csv"),
    (("bound", "budget", "--sweep", "budget=1:1:1"), "bound.csv"),
]


@pytest.mark.parametrize(("command", "name"), VERBS)
def test_a_folder_for_tables_keeps_a_strangers_file_without_force(tmp_path: Path, command, name):
    small = ("--set", "problem.n_arms=6", "--set", "problem.horizon=2")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine;1\n", encoding="utf-8")
    told = run(*command, *small, "--out", out)
    assert (told.code, (out / name).read_text(encoding="utf-8")) == (2, "mine;1\n"), told.err
    assert "--force" in told.err
    assert run(*command, *small, "--out", out, "--force").code == 0
    assert (out / name).read_text(encoding="utf-8") != "mine;1\n"
    assert run(*command, *small, "--out", out).code == 0


def test_a_comparison_never_replaces_the_models_own_table(tmp_path: Path):
    """The register is called as the table that `evaluate` writes, and lies where it is to be written."""
    folder = tmp_path / "weekly"
    assert run("new", "weekly_calls", folder).code == 0
    model, sheet = folder / "model.yaml", folder / "evaluation.csv"
    model.write_text(model.read_text(encoding="utf-8").replace("arms.csv", sheet.name), encoding="utf-8")
    (folder / "arms.csv").rename(sheet)
    before = sheet.read_bytes()
    for more in ((), ("--force",)):
        told = run("evaluate", model, "--policies", "none", "--episodes", 1, "--no-bound", "--out", sheet.parent, *more)
        assert told.code == 2, told.err
        assert "made of this file" in told.err
    assert sheet.read_bytes() == before
