"""Pages on a phone: whatever is wider than its screen can be moved sideways, and nothing is cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TEMPLATES = [file for half in ("export", "runtime") for file in sorted((REPOSITORY / half).rglob("*.jinja"))]
FRAMES = [file for file in TEMPLATES if "<style>" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_every_table_lies_in_a_box_that_scrolls(template: Path) -> None:
    page = template.read_text(encoding="utf-8")
    boxed = re.findall(r'<div class="wide">\s*<table', page)
    assert len(boxed) == page.count("<table")


@pytest.mark.parametrize("frame", FRAMES, ids=lambda file: file.name)
def test_every_page_has_such_boxes_and_the_width_of_its_screen(frame: Path) -> None:
    page = frame.read_text(encoding="utf-8")
    assert '<meta name="viewport" content="width=device-width' in page
    assert re.search(r"\.wide \{\s*overflow-x: auto;", page)
