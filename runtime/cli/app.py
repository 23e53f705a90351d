"""Finds the command, runs it, and turns what it raises into an exit status and one line.

Takes the shell's arguments. Exit status: 0 done; 1 a gate was missed; 2 bad usage or bad input.
Leaves out: what commands do. Those of other packages, the export half among them, come as entry points of COMMANDS.
"""

from __future__ import annotations

import atexit
import errno
import importlib
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pocketbert.runtime.cli.exit_status import BAD_INPUT, INTERRUPTED
from pocketbert.runtime.engines.native_logging import silence_farewells
from pocketbert.runtime.errors import PocketbertError, PocketbertWarning

UsageError: Any = typer.BadParameter.__base__  # typer exports only the subclass
COMMANDS = "pocketbert.commands"  # the entry point group through which other packages add commands
OWN_COMMANDS = ("classify", "inspect", "check", "bench", "chat")  # a module here for each, with a function of its name


class CommandsOnDemand(TyperGroup):
    """Imports a command's module when it is run, or when all are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*OWN_COMMANDS, *sorted(entry.name for entry in entry_points(group=COMMANDS))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        function = _find(cmd_name)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # all is imported that an interrupt could break
        if function is None:
            return None
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(cmd_name)(function)
        return typer.main.get_command(single)


def _find(name: str) -> Callable[..., None] | None:
    if name in OWN_COMMANDS:
        return getattr(importlib.import_module(f"pocketbert.runtime.cli.{name}"), name)  # type: ignore[no-any-return]
    for entry in entry_points(group=COMMANDS, name=name):
        return entry.load()  # type: ignore[no-any-return]
    return None


app = typer.Typer(cls=CommandsOnDemand, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Fine-tuned BERT, DistilBERT and ALBERT classifiers on phones: export, check, classify."""
    if show_version:
        print(version("pocketbert"))
        raise typer.Exit


def run() -> None:
    """Runs the command; a PocketbertError becomes one line and exit status 2."""
    atexit.register(silence_farewells)
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    if sys.stdout is None:
        _fail("stdout is closed: leave it open, or send it to a file")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status)
    except UsageError as problem:
        message = problem.format_message()
        _fail(f"{message} (see --help)") if message else sys.exit(BAD_INPUT)  # bare `pocketbert` has printed its help
    except PocketbertError as problem:
        _fail(str(problem))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `| head` closed our stdout
        sys.exit(0)
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        _fail(f"cannot write the output: {problem.strerror}")


def _print_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    if issubclass(category, PocketbertWarning):  # the others are libraries', for programmers
        print(f"pocketbert: {message}", file=sys.stderr)


def _fail(message: str) -> None:
    if sys.stderr is not None:
        print(f"pocketbert: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)
