"""The `pocketbert` command: one file for each command, read when that command runs.

`main` is what the shell calls. app.py finds the command and turns errors into an exit status; the other files show what
a library did: check.py draws what runtime/check found, bench.py what runtime/bench measured. Nothing imports a command
to do work. The commands of the export half are in export/cli.
"""

from __future__ import annotations

import sys

from pocketbert.runtime.cli.exit_status import BAD_INPUT

LIBRARIES = ("typer", "rich", "jinja2")  # of the extra `cli`


def main() -> None:
    """Runs the command that the shell was given."""
    try:
        from pocketbert.runtime.cli.app import run
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in LIBRARIES:
            raise
        message = f"the command line needs {problem.name}: pip install 'pocketbert[cli]'"
        print(f"pocketbert: {message}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    run()
