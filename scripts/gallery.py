"""Write the page of all shipped models, ``docs/gallery.md``: what the arms are, what is declared, what comes out.

    python scripts/gallery.py

A test holds that the committed page is what this writes.
"""

from __future__ import annotations

from pathlib import Path

from rmab_opt.catalog import load, model_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gallery.md"
HEAD = """# Every model that comes along

Written by `scripts/gallery.py` from the model files. `rmab-opt new NAME FOLDER` copies one to change it. *Comes out* is
the model's own regression test: the value that trying every allowed action finds and that `decide` finds too, with the
values of the file that were made small for it.
"""


def section(name: str) -> list[str]:
    """Lines of one model: what it is, what is declared, what comes out."""
    model = load(name)
    problem = model.problem
    lines = [f"## {name}", "", f"**{model.title}.** {' '.join(model.about.split())}", ""]
    lines.append(f"- arms: {problem.n_arms}; columns: {len(model.actions)}; rounds: {problem.horizon}")
    lines += [f"- {rule}: {' '.join(said.split())}" for rule, said in model.actions.describe().items()]
    lines.append(f"- decided by: {type(model.objective).__name__}")
    check = model.settings.get("check")
    if check:
        small = ", ".join(f"`{key}={value}`" for key, value in check.get("set", {}).items())
        lines.append(f"- comes out: {check['optimum']:.6g}{f' with {small}' if small else ''}")
    return [*lines, *([f"- source: {model.source}"] if model.source else [])]


def main() -> None:
    """Write the page."""
    blocks = ["\n".join(section(name)) for name in model_names()]
    PAGE.write_text("\n".join([HEAD, *(f"{block}\n" for block in blocks)]), encoding="utf-8")


if __name__ == "__main__":
    main()
