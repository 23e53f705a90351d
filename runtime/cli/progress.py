"""Progress drawn on a terminal: a line for each finished stage, or bars that vanish.

Takes a rich Console, which is stderr's: stdout is for results.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pocketbert.runtime.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


class _Drawing(Progress):
    """A row of the display for each running stage."""

    def __init__(self, console: Console, *columns: Any) -> None:
        from rich.progress import Progress as Display

        self.console = console
        shown = console.is_terminal  # stdout stays as it is: answers may go elsewhere while a bar is drawn
        self.display = Display(*columns, console=console, transient=True, disable=not shown, redirect_stdout=False)
        self.rows: dict[str, Any] = {}

    def __enter__(self) -> Any:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.stop()

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.rows[stage] = self.display.add_task(stage, total=total, note=note, rate="")

    def advance(self, stage: str, steps: int = 1, note: str = "") -> None:
        speed = self.display.tasks[self.rows[stage]].speed
        shown: dict[str, Any] = {"note": note} if note else {}
        rate = f"{speed:,.0f}/s" if speed and speed >= 1 else ""
        self.display.update(self.rows[stage], advance=steps, rate=rate, **shown)

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        self.display.update(self.rows[stage], visible=False)


class StageLines(_Drawing):
    """A line that stays for each finished stage, with its seconds; below them what is running."""

    def __init__(self, console: Console) -> None:
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        name, note = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description:<11", "fields[note]"))
        super().__init__(console, SpinnerColumn(), name, TimeElapsedColumn(), note)
        self.started: dict[str, float] = {}

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.started[stage] = time.perf_counter()
        super().start(stage, total, note)

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        from rich.text import Text

        super().finish(stage)
        spent = time.perf_counter() - self.started[stage] if seconds is None else seconds
        self.console.print(Text.assemble(("✓", "green"), f" {stage:<11} {spent:6.1f} s "), end=" ")
        self.console.print(Text(note))


class Bars(_Drawing):
    """A bar for each stage, gone when all is done; with `lines`, what is logged where there is no terminal."""

    def __init__(self, console: Console, lines: bool = False) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

        name, note = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description:<12", "fields[note]"))
        rate = TextColumn("{task.fields[rate]}")
        super().__init__(console, name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), rate, note)
        self.lines = lines and not console.is_terminal

    def log(self, line: str) -> None:
        from rich.text import Text

        if self.lines:
            self.console.print(Text(line), soft_wrap=True)
