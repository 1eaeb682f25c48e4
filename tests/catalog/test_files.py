"""Model files by name, path or folder, and copies of them."""

from __future__ import annotations

import pytest

import rmab_opt as ro
from rmab_opt.catalog import copy_model, model_folder
from rmab_opt.catalog.files import MODELINE, SCHEMA_FILE, locate
from rmab_opt.errors import ModelError


def test_a_model_is_found_by_its_name_its_path_and_its_folder(tmp_path, monkeypatch):
    named = locate("weekly_calls")
    assert named.is_file()
    assert locate(named) == locate(str(named.parent)) == named
    (tmp_path / "budget.yaml").write_text("format: 1\n")
    monkeypatch.chdir(tmp_path)
    # A name is a shipped model, a file's name is the file beside us.
    assert locate("budget").parent != tmp_path
    assert locate("budget.yaml").resolve() == tmp_path / "budget.yaml"
    assert locate("./budget.yaml").resolve() == tmp_path / "budget.yaml"
    with pytest.raises(ModelError, match="no such model file"):
        locate("elsewhere/budget")
    with pytest.raises(ModelError, match=r"no model .budgte.\n.*did you mean .budget."):
        locate("budgte")


@pytest.mark.parametrize("name", ["weekly_calls", "budget"])
def test_a_copy_is_the_model_with_its_tables(tmp_path, name):
    source = locate(name)
    folder = tmp_path / "new" / "copy"
    written = copy_model(name, folder)
    assert written[0] == folder / "model.yaml"
    # But for the first line, which names the schema, and that lies beside the copy.
    assert written[0].read_bytes().split(b"\n")[1:] == source.read_bytes().split(b"\n")[1:]
    assert written[0].read_text().startswith(f"{MODELINE}{SCHEMA_FILE}\n")
    assert written.pop().read_bytes() == (model_folder() / SCHEMA_FILE).read_bytes()
    (folder / SCHEMA_FILE).unlink()
    tables = sorted(source.parent.glob("*.csv")) if source.name == "model.yaml" else []
    assert [path.name for path in written[1:]] == [path.name for path in tables]
    assert [path.read_bytes() for path in written[1:]] == [path.read_bytes() for path in tables]
    assert sorted(folder.iterdir()) == sorted(written)
    assert ro.load(folder).actions.columns.ids == ro.load(name).actions.columns.ids
    with pytest.raises(ModelError, match="exists and is not empty"):
        copy_model(name, folder)
