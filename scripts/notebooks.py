"""Run the tutorials' notebooks and keep what came out, as notebooks and as pages of the guide.

    python scripts/notebooks.py            # all of them
    python scripts/notebooks.py own_network

A notebook is its own source: change its cells in Jupyter, then run this. It runs in an empty folder; the page beside it
(``docs/tutorials/NAME.md``) is written from its cells and outputs. A slow test runs them again.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "tutorials"
HEAD = "<!-- Written by scripts/notebooks.py from {name}.ipynb -->\n\n"
NOTE = "\n[This page as a notebook]({name}.ipynb), executed by `scripts/notebooks.py`.\n"


def names() -> list[str]:
    """The tutorials."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def executed(name: str) -> nbformat.NotebookNode:
    """A notebook run from the beginning in an empty folder, with its outputs and nothing of this machine.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        When a cell fails.
    """
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    # `!rmab-opt` is the one of this environment.
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                book, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
            )
            client.execute()
    finally:
        os.environ["PATH"] = before
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(book.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return book


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Pieces of one stream in a row as one, since where a stream is cut is chance."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            output.text = re.sub(r"\x1b\[[0-9;]*m", "", output.text).replace("\r\n", "\n")
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        kept.append(output)
    return kept


def page(name: str, book: nbformat.NotebookNode) -> str:
    """The notebook as a page: its words, its cells, and what they show."""
    parts = [HEAD.format(name=name)]
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(f"{cell.source}\n")
            continue
        language = "text" if cell.source.startswith("!") else "py"
        parts.append(f"```{language}\n{cell.source}\n```\n")
        parts += [_shown(output) for output in cell.outputs]
    return "\n".join([*parts, NOTE.format(name=name)])


def _shown(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```\n"
    data = output.get("data", {})
    if "text/html" in data:
        # One block to Markdown: no blank line may stand in it.
        html = re.sub(r"\n\s*\n", "\n", data["text/html"]).strip()
        return f'<div class="shown">\n{html}\n</div>\n'
    return f"```text\n{data.get('text/plain', '').rstrip()}\n```\n"


def main() -> None:
    """Run those that are named, or all."""
    for name in sys.argv[1:] or names():
        book = executed(name)
        nbformat.write(book, FOLDER / f"{name}.ipynb")
        (FOLDER / f"{name}.md").write_text(page(name, book), encoding="utf-8")
        print(f"ran {name}: {len(book.cells)} cells")


if __name__ == "__main__":
    main()
