"""Answers a bundle's golden cases with one engine and tells how near they came; runs inside the emulated Python.

    python golden.py BUNDLE ENGINE      one line of JSON

Takes a bundle. Prints the number of cases, how many have the checkpoint's label, the largest difference in probability
to the oracle and to the checkpoint, and the tolerance that the bundle states. Leaves out: judging (check.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.self_check import read_golden


def main(folder: Path, engine: str) -> None:
    with Classifier.open(folder, engine, threads=1, self_check=False) as classifier:
        golden = read_golden(folder, classifier.manifest)
        cases = golden.cases
        for case in cases:
            assert np.array_equal(classifier.tokenizer(case.text), case.ids), f"other ids for {case.text!r}"
        found = classifier.probabilities(np.stack([classifier.run(case.ids) for case in cases]))
        oracle, checkpoint = (
            classifier.probabilities(np.stack(logits))
            for logits in (
                [case.oracle[classifier.artifact.activations] for case in cases],
                [case.logits for case in cases],
            )
        )
        result = {
            "version": classifier.engine.version,
            "cases": len(cases),
            "tolerance": golden.tolerance,
            "agree": int((found.argmax(axis=1) == checkpoint.argmax(axis=1)).sum()),
            "oracle_gap": float(np.abs(found - oracle).max()),
            "checkpoint_gap": float(np.abs(found - checkpoint).max()),
        }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
