"""`python -m pocketbert.runtime.cli`: the same as `pocketbert`."""

from pocketbert.runtime.cli import main

main()
