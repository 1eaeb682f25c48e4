"""A log gives back what was appended, and notices every other change by the name of the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationInfo, field_validator

from rmab_opt.errors import ModelError
from rmab_opt.records import Entry, Log
from rmab_opt.records import log as log_module


class Note(Entry):
    newest: ClassVar[int] = 2
    text: str
    amounts: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "text": document.get("text", "") + " (old)"}

    @field_validator("amounts")
    @classmethod
    def _few(cls, amounts: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        if info.context and max(amounts.values(), default=0) > info.context["most"]:
            raise ValueError(f"above {info.context['most']}")
        return amounts


def note(text: str, **amounts: int) -> Note:
    return Note(format=2, text=text, amounts=amounts)


def filled(folder: Path, texts: list[str]) -> Log[Note]:
    log = Log(folder, Note, stem="note")
    for number, text in enumerate(texts):
        log.append(note(text, n=number))
    return log


def read(folder: Path) -> list[str]:
    return [entry.text for entry in Log(folder, Note, stem="note").entries]


def test_appends_are_read_back_and_go_on(tmp_path):
    filled(tmp_path, ["a", "b"])
    log = Log(tmp_path, Note, stem="note")
    assert [entry.text for entry in log.entries] == ["a", "b"]
    log.append(note("grün"))
    assert read(tmp_path) == ["a", "b", "grün"]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "head.json", "note-0001.json", "note-0002.json", "note-0003.json",
    ]  # fmt: skip


texts = st.lists(st.text(alphabet='abc"\\é\n', max_size=6), min_size=1, max_size=5)


@settings(max_examples=30)
@given(texts=texts, data=st.data())
def test_any_change_of_any_byte_of_any_file_is_noticed_by_name(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("log")
    filled(folder, texts)
    paths = sorted(path for path in folder.glob("*.json"))
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "delete"]))
    if how == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del content[place:]
    elif how == "insert":
        content.insert(place, data.draw(st.sampled_from(b'x0"')))
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(content))
    if path.name == "head.json" and how != "delete" and _same_json(bytes(content), len(texts), folder):
        return
    with pytest.raises(ModelError) as caught:
        Log(folder, Note, stem="note")
    if path.name != "head.json":
        assert path.name in str(caught.value)


def _same_json(content: bytes, count: int, folder: Path) -> bool:
    """Whether a change of the head is one of blanks only, which says the same."""
    import hashlib

    last = hashlib.sha256((folder / f"note-{count:04d}.json").read_bytes()).hexdigest()
    try:
        said = json.loads(content)
    except ValueError:
        return False
    return said == {"format": 1, "count": count, "digest": last, "pending": None}


@settings(max_examples=20)
@given(texts=st.lists(st.text(alphabet="abc", max_size=4), min_size=2, max_size=6), data=st.data())
def test_reordered_dropped_and_foreign_entries_are_noticed(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("log")
    filled(folder, texts)
    numbers = range(1, len(texts) + 1)
    first, second = data.draw(st.permutations(numbers))[:2]
    one, two = (folder / f"note-{number:04d}.json" for number in (first, second))
    how = data.draw(st.sampled_from(["swap", "copy", "drop the last", "one more"]))
    if how == "swap":
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(kept)
    elif how == "copy":
        shutil.copy(one, two)
    elif how == "drop the last":
        (folder / f"note-{len(texts):04d}.json").unlink()
    else:
        shutil.copy(one, folder / f"note-{len(texts) + 1:04d}.json")
    with pytest.raises(ModelError, match=r"note-\d{4}\.json: (was altered|is missing|was not appended)"):
        Log(folder, Note, stem="note")


class Killed(BaseException):
    pass


@settings(max_examples=30)
@given(
    texts=st.lists(st.text(alphabet="abc", max_size=4), max_size=3),
    step=st.integers(0, 2),
    torn=st.floats(0, 1),
    again=st.integers(1, 3),
)
def test_a_kill_at_any_step_of_an_append_loses_nothing_that_was_confirmed(tmp_path_factory, texts, step, torn, again):
    """Steps: before the announcement, before the entry (or half of it on a bad disk), before the confirmation."""
    folder = tmp_path_factory.mktemp("log")
    log = filled(folder, texts)
    done, real = 0, log_module.write_atomically

    def dying(path: Path, content: str | bytes, **options: bool) -> None:
        nonlocal done
        if done == step:
            if step == 1 and torn < 1:
                data = content if isinstance(content, bytes) else content.encode()
                path.write_bytes(data[: int(torn * len(data))])
            raise Killed
        done += 1
        real(path, content, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "write_atomically", dying)
        with pytest.raises(Killed):
            log.append(note("new"))
    arrived = [*texts, "new"] if step == 2 else texts
    assert read(folder) == arrived
    log = Log(folder, Note, stem="note")
    for number in range(again):
        log.append(note(f"later {number}"))
    assert read(folder) == [*arrived, *(f"later {number}" for number in range(again))]


def test_a_second_writer_does_not_overwrite(tmp_path):
    filled(tmp_path, ["a"])
    stale = Log(tmp_path, Note, stem="note")
    Log(tmp_path, Note, stem="note").append(note("b"))
    with pytest.raises(ModelError, match=r"note-0002.json: was written by somebody else"):
        stale.append(note("c"))
    assert read(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amounts": ["x"]}, "amounts: "),
        ({"amounts": {"n": "1"}}, r"amounts\.n: "),
        ({"amounts": {"n": 9}}, "amounts: above 5"),
        ({"extra": 1}, "extra: "),
        ({"text": None}, "text: "),
        ({"format": 3}, "format 3, this version reads up to 2"),
        ({"format": True}, "it has no format"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(tmp_path, change, words):
    filled(tmp_path, ["a", "b"])
    path = tmp_path / "note-0002.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=rf"note-0002\.json: .*{words}"):
        Log(tmp_path, Note, stem="note", context={"most": 5})


def test_what_cannot_be_read_is_not_written(tmp_path):
    log = Log(tmp_path, Note, stem="note", context={"most": 5})
    with pytest.raises(ModelError, match="amounts: above 5"):
        log.append(note("a", n=6))
    assert list(tmp_path.glob("*.json")) == []


def test_an_older_log_without_a_head_reads_and_goes_on(tmp_path):
    first = {"format": 1, "text": "a", "previous": ""}
    (tmp_path / "note-0001.json").write_text(json.dumps(first))
    with pytest.raises(ModelError, match=r"head\.json: is missing"):
        Log(tmp_path, Note, stem="note")
    log = Log(tmp_path, Note, stem="note", headless=(1,))
    log.append(note("b"))
    assert read(tmp_path) == ["a (old)", "b"]
    (tmp_path / "head.json").unlink()
    with pytest.raises(ModelError, match=r"head\.json: is missing, it vouches for note-0002\.json"):
        Log(tmp_path, Note, stem="note", headless=(1,))


def test_a_folder_or_a_stray_name_in_place_of_an_entry(tmp_path):
    filled(tmp_path, ["a"])
    (tmp_path / "note-0002.json").mkdir()
    with pytest.raises(ModelError, match=r"note-0002\.json"):
        Log(tmp_path, Note, stem="note")
    (tmp_path / "note-0002.json").rmdir()
    (tmp_path / "note-2.json").write_text("{}")
    with pytest.raises(ModelError, match=r"note-2\.json: is no entry"):
        Log(tmp_path, Note, stem="note")
