"""How long work says how far it is. The one protocol of exporting, checking, measuring and training.

Takes nothing and shows nothing: a caller that wants to see progress passes a subclass, as cli/progress.py does.
"""

from __future__ import annotations


class Progress:
    """Called by stages, each by its name; several may run at once."""

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        """`stage` begins. It takes `total` steps; None where nobody knows. `note`: what it is doing."""

    def advance(self, stage: str, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; a `note` that is not empty takes the place of the one before."""

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        """`stage` is done, with this result. `seconds`: how long it took, where a process of its own knows better."""

    def log(self, line: str) -> None:
        """A line worth keeping, for callers that draw nothing."""
