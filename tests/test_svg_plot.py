"""Plots: values stand where their axes say, x to the right and y upwards."""

from __future__ import annotations

import pytest

from pocketbert.runtime.bench.page import latency_plots
from pocketbert.runtime.html.svg_plot import Series, draw_plot


def test_a_plot_has_x_to_the_right_and_y_upwards():
    """From (0, 0), low at the left, to (10, 100), high at the right; SVG's y points down."""
    drawn = draw_plot("title", "tokens", "ms", [Series("one", [(0, 0), (10, 100), (10, 0)])], zero=True)
    (x0, y0), (x1, y1), (x2, y2) = drawn.marks[0].dots
    assert (x0, y0) == (0, drawn.height)
    assert (x1, y1) == pytest.approx((drawn.width / 1.04, drawn.height * (1 - 1 / 1.04)), abs=0.1)
    assert (x2, y2) == (x1, y0)
    assert drawn.marks[0].path == f"M{x0} {y0}L{x1} {y1}L{x2} {y2}"


def test_ticks_stand_where_their_values_are_drawn():
    drawn = draw_plot("title", "tokens", "ms", [Series("one", [(0, 0), (10, 100)])], zero=True)
    (x0, y0), (x1, y1) = drawn.marks[0].dots
    x_ticks, y_ticks = ({tick.text: tick.at for tick in ticks} for ticks in (drawn.x_ticks, drawn.y_ticks))
    assert (x_ticks["0"], y_ticks["0"]) == (x0, y0)
    assert (x_ticks["10"], y_ticks["100"]) == pytest.approx((x1, y1), abs=0.1)
    assert (drawn.x_name, drawn.y_name) == ("tokens", "ms")


def test_percent_is_of_y():
    drawn = draw_plot("title", "step", "accuracy", [Series("one", [(0, 0.5), (10, 1.0)])], percent=True)
    assert "100 %" in [tick.text for tick in drawn.y_ticks]
    assert "10" in [tick.text for tick in drawn.x_ticks]


def test_the_latency_plot_has_tokens_across_and_milliseconds_up():
    latency = {"8": {"text_to_label_p50": 0.001}, "16": {"text_to_label_p50": 0.004}}
    found = {"results": [{"subject": {"engine": "tflite", "threads": 1}, "summary": {"latency": latency}}]}
    (drawn,) = latency_plots(found)
    (x0, y0), (x1, y1) = drawn.marks[0].dots
    assert (drawn.x_name, drawn.y_name, x1) == ("tokens", "ms", pytest.approx(2 * x0, abs=0.2))
    assert (drawn.height - y1) == pytest.approx(4 * (drawn.height - y0), abs=0.5)
