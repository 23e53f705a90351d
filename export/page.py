"""Renders a page of this folder's templates: one HTML file that needs no network.

Takes a template's name and what it shows. Leaves out: what is shown (distill/report.py, compare/report.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pocketbert.runtime.errors import PocketbertError


def write(target: Path, template: str, **shown: Any) -> None:
    """Writes the page under another name first: it is whole or absent. Raises PocketbertError."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**shown)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8", errors="replace")
        os.replace(partial, target)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise PocketbertError(f"cannot write {target}: {problem.strerror or problem}") from problem
