"""A run's folder: what it was, its log, its last checkpoint; every file is whole or absent, one writer at a time."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rmab_opt.decisions import Model
from rmab_opt.errors import ModelError
from rmab_opt.records import held, json_text, parsed, read_regular, refuse_foreign, write_atomically

__all__ = ["RunFolder", "fingerprint", "versions"]


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("rmab-opt", "numpy", "scipy", "pyomo", "highspy", "torch"):
        # A table of policies that need no torch is made without it.
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
    if problem.start_shared is not None:
        digest.update(repr(problem.shared_names).encode() + problem.start_shared.tobytes())
    for text in (problem.horizon, problem.discount, model.actions.columns.ids, model.actions.describe()):
        digest.update(repr(text).encode())
    return digest.hexdigest()


class RunFolder:
    """Files of one run under ``path``: run.json, log.jsonl, checkpoint.safetensors, weights.safetensors."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ModelError(f"{self.path}: is a file", "name a folder for the run.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while the block writes to it; ModelError that names who does already."""
        with held(self.path, "trains here"):
            if self.record is None:
                # The record is the first file of a run: what is there without one is somebody else's.
                for path in self.path.glob("*.safetensors"):
                    refuse_foreign(path)
                refuse_foreign(self.path / "log.jsonl")
            yield

    @property
    def record(self) -> dict[str, Any] | None:
        """Content of run.json, or None."""
        file = self.path / "run.json"
        if not file.exists():
            return None
        try:
            content = parsed(read_regular(file))
        except ValueError as error:
            raise ModelError(f"{file}: is not a run record ({error})", "name another folder.") from None
        if not isinstance(content, dict):
            raise ModelError(
                f"{file}: is not a run record, it holds a {type(content).__name__}", "name another folder."
            )
        return content

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_atomically(self.path / "run.json", json_text(record) + "\n", kept=True)

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """Write log.jsonl as a whole; a run logs one row an episode."""
        write_atomically(
            self.path / "log.jsonl", "".join(json_text(row, indent=None) + "\n" for row in rows), kept=True
        )

    def read_log(self) -> list[dict[str, Any]]:
        """Rows of log.jsonl; ModelError that names the line which is none."""
        file = self.path / "log.jsonl"
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(read_regular(file).splitlines() if file.exists() else [], start=1):
            try:
                row = parsed(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ModelError(
                    f"{file}:{number}: is no row of a log", "put back the file, or train in another folder."
                )
            rows.append(row)
        return rows

    def logged(self, count: int) -> list[dict[str, Any]]:
        """The rows that a checkpoint has seen; a log may run ahead of it, never fall behind.

        Raises
        ------
        ModelError
            When rows are missing.
        """
        rows = self.read_log()
        if len(rows) < count:
            raise ModelError(
                f"{self.path / 'log.jsonl'}: the log has {len(rows)} rows, the checkpoint has seen {count}",
                "put back the file, or train in another folder.",
            )
        return rows[:count]

    def write_tensors(self, name: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
        """Write arrays and JSON metadata to NAME.safetensors; returns the file's SHA-256."""
        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        data = save(whole, {"meta": json_text(meta, indent=None)})
        write_atomically(self.path / f"{name}.safetensors", data, kept=True)
        return hashlib.sha256(data).hexdigest()

    def read_tensors(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and metadata of NAME.safetensors, or None when it is not there.

        Raises
        ------
        ModelError
            When the file is damaged, or is not the one that run.json names by its digest.
        """
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            return None
        record = self.record or {}
        known = record.get("digests", {})
        if isinstance(known, dict) and name in known and known[name] != hashlib.sha256(read_regular(file)).hexdigest():
            raise ModelError(f"{file}: is not the file that run.json was written with", "put back the original file.")
        read_regular(file)
        try:
            with safe_open(file, framework="np") as content:
                meta = parsed((content.metadata() or {}).get("meta", "{}"))
                return {key: content.get_tensor(key) for key in content.keys()}, meta  # noqa: SIM118 - not a dict
        except (SafetensorError, ValueError) as error:
            raise ModelError(f"{file}: is damaged ({error})", "start the run in another folder.") from None
