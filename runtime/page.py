"""Renders a template to one HTML file that needs no network.

Takes a template, which may extend page.html.jinja beside this file, and what it shows.
Leaves out: what is shown (report.py, bench_page.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pocketbert.runtime.errors import PocketbertError

HERE = Path(__file__).parent


def write(target: Path, template: Path, **shown: Any) -> None:
    """Writes the page. Raises PocketbertError if `target` cannot be written."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_whole(target, environment.get_template(template.name).render(**shown))


def write_whole(target: Path, content: str) -> None:
    """Writes under another name first, so that a file is whole or absent; lone surrogates become question marks."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(content, encoding="utf-8", errors="replace")
        os.replace(partial, target)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise PocketbertError(f"cannot write {target}: {problem.strerror or problem}") from problem
