"""A run's folder: what it was, its log, its last checkpoint; every file is whole or absent."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rmab_opt.decisions import Model
from rmab_opt.errors import ModelError
from rmab_opt.records import write_atomically

__all__ = ["RunFolder", "fingerprint", "versions"]


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("rmab-opt", "numpy", "scipy", "pyomo", "highspy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def fingerprint(model: Model) -> str:
    """Hash of what a run depends on: sizes, dynamics, constraints, horizon."""
    digest = hashlib.sha256()
    problem = model.problem
    tabular = getattr(problem.dynamics, "tabular", None)
    # Dynamics without tables say by identity() what tells them apart.
    arrays = getattr(problem.dynamics, "identity", tuple) if tabular is None else tabular
    for array in arrays():
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(problem.start).tobytes())
    for text in (problem.horizon, problem.discount, model.actions.columns.ids, model.actions.describe()):
        digest.update(repr(text).encode())
    return digest.hexdigest()


class RunFolder:
    """Files of one run under ``path``: run.json, log.jsonl, checkpoint.safetensors, weights.safetensors."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ModelError(f"{self.path}: is a file", "name a folder for the run.")

    @property
    def record(self) -> dict[str, Any] | None:
        """Content of run.json, or None."""
        file = self.path / "run.json"
        if not file.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelError(f"{file}: is not a run record ({error})", "name another folder.") from None
        return content

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_atomically(self.path / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """Write log.jsonl as a whole; a run logs one row an episode."""
        write_atomically(self.path / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def read_log(self) -> list[dict[str, Any]]:
        """Rows of log.jsonl."""
        file = self.path / "log.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def write_tensors(self, name: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Write arrays and JSON metadata to NAME.safetensors."""
        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        write_atomically(self.path / f"{name}.safetensors", save(whole, {"meta": json.dumps(meta)}))

    def read_tensors(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and metadata of NAME.safetensors, or None when it is not there.

        Raises
        ------
        ModelError
            When the file is damaged.
        """
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            return None
        try:
            with safe_open(file, framework="np") as content:
                meta = json.loads((content.metadata() or {}).get("meta", "{}"))
                return {key: content.get_tensor(key) for key in content.keys()}, meta  # noqa: SIM118 - not a dict
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ModelError(f"{file}: is damaged ({error})", "start the run in another folder.") from None
