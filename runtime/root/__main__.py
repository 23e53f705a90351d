"""`pocketbert`, and `python -m pocketbert`: hands over to runtime/cli; can be interrupted while that is imported."""

import signal


def main() -> None:
    """Runs the command. Until its module is imported, Ctrl-C ends the process as a shell expects, without a traceback;
    runtime/cli/app.py takes over from there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pocketbert.runtime.cli import main as run

    run()


if __name__ == "__main__":
    main()
