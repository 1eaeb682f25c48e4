"""Writes ``requirements-dev.lock``: one version of every package of the development environment, for every Python.

The versions installed beside this script, with which the suite ran, are kept wherever they fit; ``uv`` resolves the
rest. CUDA packages are left out: which build of torch comes is decided at installation (docs/install.md).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("learn", "report", "onnx", "docs", "dev")
HEAD = """\
# One version of every package of the development environment; made by `make lock`, used by
# python -m pip install -c requirements-dev.lock -e '.[{extras}]'
"""
CUDA = re.compile(r"^(nvidia-|cuda-|triton)")


def main() -> None:
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("no uv at hand: `pipx install uv` brings it")
    installed = sorted(
        f"{package.metadata['Name']}=={package.version.split('+')[0]}"
        for package in distributions()
        if package.metadata["Name"] != "rmab-opt"
    )
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder) / "requirements-dev.lock"
        seen.write_text("\n".join(installed) + "\n", encoding="utf-8")
        command = [uv, "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--quiet"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--output-file", str(seen)]
        command += [part for extra in EXTRAS for part in ("--extra", extra)]
        subprocess.run([*command, "-c", "constraints.txt"], cwd=ROOT, check=True)
        lines = [line for line in seen.read_text(encoding="utf-8").splitlines() if not CUDA.match(line)]
    text = HEAD.format(extras=",".join(EXTRAS)) + "\n".join(lines) + "\n"
    (ROOT / "requirements-dev.lock").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
