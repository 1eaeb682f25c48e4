"""The command line: speaks to a person; every verb also answers in JSON."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from rmab_opt import __version__, registry
from rmab_opt.cli.common import GROUPS, printed, say
from rmab_opt.errors import ModelError, RmabError

__all__ = ["main"]

# Everything else is imported inside the verbs: `rmab-opt --help` must not load torch, Pyomo or a setting.

EXIT_CODES = (
    "Exit codes: 0 answered, 1 nobody reads the output, 2 a model, a table or an option is not what it must be, 3 no "
    "action satisfies all constraints, 4 the solver failed or an answer did not survive its re-check, 5 value and "
    "constraints of a saved decision hold and its bound is not proven, 70 an internal error, 74 the machine has no "
    "room or fails, 130 stopped."
)


class _Grouped(TyperGroup):
    """Help that lists the verbs under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        headings: dict[str, list[tuple[str, str]]] = {heading: [] for heading in GROUPS}
        for entry in registry.entries("verb"):
            said = (self.commands[entry.name].help or "").strip().partition("\n\n")[0]
            headings.setdefault(entry.group or "others", []).append((entry.name, said))
        for heading, rows in headings.items():
            if rows:
                with formatter.section(heading.capitalize()):
                    formatter.write_dl(sorted(rows))


def _version(asked: bool) -> None:
    if asked:
        say(f"rmab-opt {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A Python file with own kinds, policies or verbs; several times, anywhere."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Decide under constraints, with a certificate; train and evaluate policies for restless bandits."""
    from rmab_opt.records import safe

    # Until the verb ends: nothing is written over a file that it reads.
    context.with_resource(safe())


def _application() -> typer.Typer:
    app = typer.Typer(
        cls=_Grouped,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=EXIT_CODES,
    )
    app.callback()(_root)
    for entry in registry.entries("verb"):
        app.command(entry.name, help=entry.said or None)(entry.make)
    return app


def _global_options(given: list[str]) -> tuple[list[str], list[str], bool]:
    """Arguments of the verb, plugin files, and whether to debug: both options may stand before or after the verb."""
    rest: list[str] = []
    plugins: list[str] = []
    debug = False
    arguments = iter(given)
    for argument in arguments:
        if argument == "--":
            return [*rest, argument, *arguments], plugins, debug
        if argument == "--debug":
            debug = True
        elif argument == "--plugin" or argument.startswith("--plugin="):
            file = argument.partition("=")[2] if "=" in argument else next(arguments, "")
            if not file:
                raise ModelError("--plugin without a file", "write --plugin FILE.py.")
            plugins.append(file)
        else:
            rest.append(argument)
    return rest, plugins, debug


def main() -> None:
    """Entry point: errors become one message and an exit code (2 input, 3 infeasible, 4 solver)."""
    _open_streams()
    debug = "--debug" in sys.argv
    try:
        arguments, plugins, debug = _global_options(sys.argv[1:])
        for file in plugins:
            registry.load_plugin(file)
        try:
            _application()(args=arguments, standalone_mode=True, prog_name="rmab-opt")
        finally:
            # What is still in the buffer would fail after the exit code is settled.
            sys.stdout.flush()
    except RmabError as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("stopped by Ctrl-C; what was finished is kept", 130)
    except MemoryError as error:
        if debug:
            raise
        said = str(error) or "an array of the model"
        _fail(f"the machine has not enough memory ({said})\n  To fix, take a smaller model or horizon.", 74)
    except BrokenPipeError:
        _drop(sys.stdout)
        sys.exit(1)
    except ModuleNotFoundError as error:
        # The one large dependency, which a plain installation does without.
        if debug or error.name != "torch":
            raise
        _fail("ModelError: this needs torch, which is not installed\n  To fix, pip install 'rmab-opt[learn]'.", 2)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            # Files say so themselves, with their name; this is what is printed.
            _drop(sys.stdout)
            _fail("the output cannot be written, the disk is full\n  To fix, make room and repeat.", 74)
        # The rim: a person gets one line, --debug the traceback.
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error}\n  To fix, repeat with --debug and report it.", 70)


def _fail(message: str, code: int) -> None:
    try:
        sys.stderr.write(printed(message + "\n", sys.stderr.encoding))
        sys.stderr.flush()
    except OSError:
        # Nobody can be told; the exit code still says it.
        _drop(sys.stderr)
    sys.exit(code)


def _open_streams() -> None:
    """Streams that were closed before we began (`>&-`) lead nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _drop(stream: TextIO) -> None:
    """Let a stream that nobody takes lead nowhere: the interpreter flushes it once more as it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
