"""Rewrite the tables of registered things and of what is read: between ``<!-- registry: KIND -->`` and its end.

    python scripts/registry_tables.py

A test holds that the committed tables are what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

from rmab_opt import registry

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"(<!-- registry: (\w+) -->\n)(.*?)(<!-- end -->)", flags=re.S)
READ = re.compile(r"(<!-- readers -->\n)(.*?)(<!-- end -->)", flags=re.S)


def table(kind: str) -> list[str]:
    """Lines of the Markdown table of a kind of things, the kernel's own first."""
    lines = ["| name | arguments | what | setting |", "|---|---|---|---|"]
    for entry in sorted(registry.entries(kind), key=lambda entry: (entry.setting, entry.name)):
        said = ", ".join(
            f"`{name}`" if value in (None, "null", "empty") else f"`{name}: {value}`"
            for name, value in entry.described().items()
        )
        page = f"[{entry.setting}]({entry.setting}.md)" if entry.setting else ""
        what = entry.line.replace("``", "`").replace("|", "\\|")
        what = re.sub(r":(?:mod|class|func|meth|data):`[~.]*(?:\w+\.)*(\w+)`", r"`\1`", what)
        lines.append(f"| `{entry.name}` | {said} | {what} | {page} |")
    return lines


def readers() -> list[str]:
    """Lines of the table of everything that the encoder reads, from the readers' own lists."""
    from rmab_opt.encoder.read import models, onnx_files, torch_calls, torch_modules

    called = sorted(
        {str(getattr(key, "__name__", key)) for key in torch_calls.functions()} | set(torch_calls.methods())
    )
    names = {
        "torch modules": sorted(kind.__name__ for kind in torch_modules.layers()),
        "torch functions and methods": [name for name in called if not name.startswith("_")],
        "ONNX operators": sorted(onnx_files.OPERATORS),
        "scikit-learn estimators": sorted(models.ESTIMATORS),
        "scikit-learn transformers": sorted(models.SCALERS),
    }
    lines = ["| from | read |", "|---|---|"]
    return lines + [f"| {what} | {', '.join(f'`{name}`' for name in found)} |" for what, found in names.items()]


def rewritten(text: str) -> str:
    """A page with its tables made anew."""
    text = READ.sub(lambda found: found[1] + "\n".join(readers()) + f"\n{found[3]}", text)
    return BLOCK.sub(lambda found: f"{found[1]}" + "\n".join(table(found[2])) + f"\n{found[4]}", text)


def main() -> None:
    """Rewrite every page that has such a block."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if rewritten(text) != text:
            page.write_text(rewritten(text), encoding="utf-8")
            print(page.name)


if __name__ == "__main__":
    main()
