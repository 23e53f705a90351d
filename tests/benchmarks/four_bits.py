"""What keeping the first layers at 8 bits costs in bytes and saves in answers: the figures and the picture.

    python tests/benchmarks/four_bits.py [--shared ../shared]      some minutes

Takes the trained checkpoints and SST-2's dev sentences of `shared`. Writes results/four-bits.json and
results/four-bits.svg beside this file. Leaves out: engines; this is the oracle, in torch, calibrated by the package's
own texts.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jinja2 import Environment, FileSystemLoader

from pocketbert.export.calibration_texts import read_calibration_texts
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder, compute_logits
from pocketbert.export.quantize import DEFAULT_SCHEME, FOUR_BIT_SCHEME, SCHEMES, quantize, unpack, weight_bits
from pocketbert.runtime.check.datasets import read_dataset
from pocketbert.runtime.html import page
from pocketbert.runtime.html.svg_plot import Plot, Series, draw_plot
from pocketbert.runtime.scores import probabilities

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
CHECKPOINTS = {"DistilBERT": "distilbert-l6-h384-sst2", "ALBERT": "albert-l6-h384-sst2"}
LONGEST = 128  # tokens
BITS, MB = 8, 1_000_000
# The page's names for colours, as they are for a picture that stands alone, on white or black.
COLOURS = {"line": "#c8ccd0", "soft": "#808890", "s1": "#2f6fb5", "s2": "#c2571a"}
STYLE = "text{fill:#808890;font:12px system-ui,sans-serif}"


def main(
    shared: Annotated[Path, typer.Option(help="Folder with models and data.")] = HERE.parents[2] / "shared",
) -> None:
    """Measure, and write results/four-bits.json and .svg."""
    found = {name: measure(shared / "models" / folder, shared) for name, folder in CHECKPOINTS.items()}
    (RESULTS / "four-bits.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "four-bits.svg").write_text(draw(found))


def measure(folder: Path, shared: Path) -> list[dict[str, Any]]:
    """A row for each number of layers at 8 bits, and one of the 8-bit scheme."""
    loaded = load_checkpoint(folder)
    encoder = build_encoder(replace(loaded.config, max_position_embeddings=LONGEST), loaded.tensors)
    texts = read_calibration_texts(loaded, None, LONGEST).ids
    dev = read_dataset(shared / "data/sst2/dev.tsv", loaded.labels)
    ids = encode(loaded, dev.texts)
    exact = np.stack(compute_logits(encoder, ids))
    rows = []
    for layers in range(loaded.config.stored_layers + 1):
        oracle = quantize(encoder, SCHEMES[FOUR_BIT_SCHEME], texts, eight_bit_layers=layers)
        rows.append({"eight_bit_layers": layers, **compare(oracle, exact, ids, dev.labels)})
    oracle = quantize(encoder, SCHEMES[DEFAULT_SCHEME])
    return [*rows, {"eight_bit_layers": None, **compare(oracle, exact, ids, dev.labels)}]


def encode(loaded: Checkpoint, texts: Any) -> list[list[int]]:
    loaded.tokenizer.enable_truncation(LONGEST)
    return [each.ids for each in loaded.tokenizer.encode_batch(list(texts))]


def compare(oracle: Encoder, exact: np.ndarray, ids: list[list[int]], labels: np.ndarray) -> dict[str, float]:
    """Bytes of the oracle's weights, how often it answers like the exact one, and how often right."""
    found = np.stack(compute_logits(unpack(oracle), ids))
    drift = np.abs(probabilities(found, False) - probabilities(exact, False)).max(axis=1)
    right = labels[np.arange(len(found)), found.argmax(axis=1)]
    return {
        "bytes": count_bytes(oracle),
        "agreement": float((found.argmax(axis=1) == exact.argmax(axis=1)).mean()),
        "accuracy": float(right.mean()),
        "exact_accuracy": float(labels[np.arange(len(exact)), exact.argmax(axis=1)].mean()),
        "mean_drift": float(drift.mean()),
    }


def count_bytes(oracle: Encoder) -> int:
    bits = weight_bits(oracle)
    stored = {name: each for name, each in oracle.state_dict().items() if not name.endswith("zero_point")}
    return sum(each.numel() * bits.get(name, BITS * each.element_size()) for name, each in stored.items()) // BITS


def draw(found: dict[str, list[dict[str, Any]]]) -> str:
    """The picture: a line for each checkpoint, its last point the 8-bit scheme."""
    lines = [Series(name, [(row["bytes"] / MB, row["agreement"]) for row in rows]) for name, rows in found.items()]
    plot = draw_plot("Answers like fp32's", "MB of weights", "agreement, SST-2 dev", lines, percent=True)
    return render(plot)


def render(plot: Plot) -> str:
    """The page's macro alone, as a file."""
    loader = FileSystemLoader(Path(page.__file__).parent)
    macro = Environment(loader=loader, autoescape=True).get_template("page.html.jinja").module.plot
    svg = re.search(r"<svg.*</svg>", str(macro(plot)), re.DOTALL)
    assert svg is not None
    names = "".join(
        f'<text x="{plot.width - 6}" y="{plot.height - 10 - 16 * index}" text-anchor="end" '
        f'style="fill:var(--s{mark.shade})">{mark.name}</text>'
        for index, mark in enumerate(plot.marks)
    )
    head, body = svg[0].split(">", 1)
    whole = (
        f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{body.replace("</svg>", names + "</svg>")}\n'
    )
    return re.sub(r"var\(--(\w+)\)", lambda match: COLOURS[match[1]], whole)


if __name__ == "__main__":
    typer.run(main)
