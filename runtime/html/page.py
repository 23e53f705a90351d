"""Renders a template to one HTML file that needs no network.

Takes a template and what it shows. Templates name others by their path below runtime/; html/page.html.jinja frames all.
Leaves out: what is shown (check/report.py, bench/page.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pocketbert.runtime.errors import PocketbertError

RUNTIME = Path(__file__).parents[1]


def write_page(target: Path, template: Path, **shown: Any) -> None:
    """Writes the page. Raises PocketbertError if `target` cannot be written."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, RUNTIME])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_whole(target, environment.get_template(template.name).render(**shown))


def write_whole(target: Path, content: str) -> None:
    """Writes under another name first, so that a file is whole or absent; lone surrogates become question marks.

    What is there and is no regular file is written to, not replaced: a device, a pipe, a link, as /dev/stdout is one
    even where it ends at a file. Raises PocketbertError.
    """
    if target.is_symlink() or (target.exists() and not target.is_file()):
        _write(target, content)
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _write(partial, content)
        os.replace(partial, target)
    except OSError as problem:
        raise PocketbertError(f"cannot write {target}: {problem.strerror or problem}") from problem
    finally:
        partial.unlink(missing_ok=True)


def _write(target: Path, content: str) -> None:
    try:
        target.write_text(content, encoding="utf-8", errors="replace")
    except OSError as problem:
        raise PocketbertError(f"cannot write {target}: {problem.strerror or problem}") from problem
