"""``rmab-opt serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, say
from rmab_opt.registry import register


@register("verb", "serve", group=PROGRAMME)
def serve(
    name: Annotated[str, typer.Argument(metavar="DIR|MODEL", help="A programme's folder, or a model.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Where to work on a model; MODEL-weeks.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 0,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="For a shared office; needs a password.")
    ] = None,
    password: Annotated[
        str | None, typer.Option("--password", envvar="RMAB_OPT_PASSWORD", help="Of --host; better in the environment.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it.")] = True,
) -> None:
    """The week in a browser on this machine: list, locks, reasons, what-ifs, record, proof."""
    import sys
    import webbrowser

    from rmab_opt.page.serve import serve as run

    def ready(address: str) -> None:
        say(f"open {address}\nstop with Ctrl-C; nothing leaves this machine")
        sys.stdout.flush()
        if browser and sys.stdout.isatty():
            webbrowser.open(address)

    run(name, out=folder, host=host, port=port, password=password, ready=ready)
