"""Files of a run belong together, or the one that does not is named."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.learning.run_folder import RunFolder


def test_tensors_are_the_ones_that_the_record_names(tmp_path):
    run, other = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    digest = run.write_tensors("weights", {"w": np.ones(2)}, {"n": 1})
    run.write_record({"digests": {"weights": digest}})
    arrays, meta = run.read_tensors("weights")
    assert (arrays["w"].tolist(), meta) == ([1.0, 1.0], {"n": 1})
    other.write_tensors("weights", {"w": np.zeros(2)}, {"n": 1})
    (run.path / "weights.safetensors").write_bytes((other.path / "weights.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"weights\.safetensors: is not the file that run\.json"):
        run.read_tensors("weights")
    # Runs of before there were digests are read as they are.
    assert other.read_tensors("weights")[1] == {"n": 1}
    assert other.read_tensors("checkpoint") is None


@pytest.mark.parametrize("cut", [1, 9])
def test_a_log_may_run_ahead_of_its_checkpoint_but_never_fall_behind(tmp_path, cut):
    run = RunFolder(tmp_path)
    rows = [{"episode": number} for number in range(3)]
    run.write_log(rows)
    assert run.logged(2) == rows[:2]
    with pytest.raises(ModelError, match=r"log\.jsonl: the log has 3 rows, the checkpoint has seen 4"):
        run.logged(4)
    file = tmp_path / "log.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: -cut - 1])
    with pytest.raises(ModelError, match=r"log\.jsonl:3: is no row"):
        run.logged(2)
    file.unlink()
    with pytest.raises(ModelError, match="the log has 0 rows"):
        run.logged(1)


@pytest.mark.parametrize(("content", "words"), [("[]", "holds a list"), ("{", "is not a run record")])
def test_a_record_that_is_none(tmp_path, content, words):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ModelError, match=rf"run\.json: .*{words}"):
        _ = RunFolder(tmp_path).record


def test_one_trainer_at_a_time(tmp_path):
    script = (
        "import sys, time\nfrom rmab_opt.learning.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).held():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(ModelError, match=f"process {child.pid} on .* trains here since"),
            RunFolder(tmp_path).held(),
        ):
            pass
    finally:
        child.kill()
        child.wait()
    with RunFolder(tmp_path).held():
        pass
