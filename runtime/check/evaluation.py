"""What engines are evaluated on: golden cases, a text for each length that matters, and labelled data.

Takes a bundle's task, golden cases, data, and the checkpoint's own logits where there are any. Returns an `Evaluation`.
Leaves out: running engines (parity.py) and reading data files (tasks/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check.evaluation_set import CHECKPOINT, EvaluationSet
from pocketbert.runtime.tokenizer import Encoding

if TYPE_CHECKING:
    from pocketbert.runtime.check.evaluation_set import Ids
    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.check.tasks import Data, Task
    from pocketbert.runtime.manifest import Manifest
    from pocketbert.runtime.progress import Progress
    from pocketbert.runtime.self_check import Golden, GoldenCase

    # (ids of each input, what to call after each step) -> logits by CHECKPOINT and by every artifact's activations
    Reference = Callable[[Sequence[Ids], Callable[[], None]], Mapping[str, Logits]]


@dataclass(frozen=True)
class Evaluation:
    """All that every engine is asked."""

    golden: EvaluationSet
    sweep: EvaluationSet  # a text for each length at which something could change
    tolerance: float  # by how much a probability may differ from the oracle's, as the bundle has it
    data: EvaluationSet | None = None
    golden_drift: float | None = None  # from the checkpoint's logits to golden.json's, where both are known

    @property
    def comparison_set(self) -> EvaluationSet:
        """What divergence is measured on: the data where the checkpoint's logits are known, else the golden cases."""
        return self.data if self.data and self.data.reference else self.golden


def assemble(
    task: Task, golden: Golden, data: Data | None, reference: Reference | None, progress: Progress
) -> Evaluation:
    """All that engines will be asked, with the checkpoint's logits: by `reference`, or else the golden cases' own."""
    manifest = task.manifest
    stored = _golden_set(task, golden.cases)
    sweep = _length_sweep(task, golden.cases)
    texts = None if data is None else make_data_set(task, data)
    if reference is None:
        return Evaluation(stored, sweep, golden.tolerance, texts)
    sets = [stored, sweep, *([texts] if texts else [])]
    progress.start("checkpoint", len({CHECKPOINT, *_arithmetics(manifest)}) * sum(len(each.ids) for each in sets))
    computed = _compute_references(sets, reference, progress)
    drift = _golden_drift(stored, computed[0])
    return Evaluation(stored, computed[1], golden.tolerance, computed[2] if texts else None, drift)


def _golden_set(task: Task, golden: Sequence[GoldenCase]) -> EvaluationSet:
    logits: dict[str, Logits] = {
        kind: [case.oracle[kind] for case in golden] for kind in sorted(_arithmetics(task.manifest))
    }
    logits[CHECKPOINT] = [case.logits for case in golden]
    specials = task.tokenizer("")
    return EvaluationSet(
        name=f"{len(golden)} golden cases",
        texts=[case.text for case in golden],
        ids=[case.ids for case in golden],
        reference=logits,
        seconds=[case.text_pair for case in golden],
        encodings=[_encode_golden(task, case, specials) for case in golden],
        owners=range(len(golden)),
    )


def _encode_golden(task: Task, case: GoldenCase, specials: Ids) -> Encoding:
    """Where a case's ids come from. If the tokenizer gives others, as a gate will say, their places are numbered."""
    encoding = task.tokenizer.encode(case.text, case.text_pair)
    if np.array_equal(encoding.ids, case.ids):
        return encoding
    special, places = np.isin(case.ids, specials), np.arange(len(case.ids), dtype=np.int32)
    second = np.cumsum(special) > 1  # behind the first text stands a separator
    sequences = tuple(
        None if is_special else int(is_second) for is_special, is_second in zip(special, second, strict=True)
    )
    return Encoding(
        ids=case.ids,
        offsets=np.stack([places, places + 1], axis=1),
        word_ids=tuple(places.tolist()),
        sequence_ids=sequences,
        pieces=tuple(map(str, case.ids)),
    )


def make_data_set(task: Task, data: Data) -> EvaluationSet:
    """All inputs of a data file."""
    seconds = task.seconds(data)
    windows = [task.encode(text, second) for text, second in zip(data.texts, seconds, strict=True)]
    encodings = [window for each in windows for window in each]
    return EvaluationSet(
        name=f"{len(windows)} texts of {data.name}",
        texts=data.texts,
        ids=[encoding.ids for encoding in encodings],
        seconds=seconds,
        encodings=encodings,
        owners=[number for number, each in enumerate(windows) for _ in each],
        data=data,
    )


def _length_sweep(task: Task, golden: Sequence[GoldenCase]) -> EvaluationSet:
    """One word, two words, both sides of each length's edge, and a text that is too long and must be cut."""
    manifest, tokenizer = task.manifest, task.tokenizer
    texts = [case.text if case.text_pair is None else case.text_pair for case in golden]
    words = max(texts, key=len).split() or ["word"]
    long = tokenizer(" ".join(words * manifest.max_length))
    whole = [tokenizer(words[0]), tokenizer(" ".join(words[:2])), long]
    lengths = {edge + step for edge in manifest.lengths for step in (0, 1)} - {len(ids) for ids in whole}
    cut = [np.append(long[: length - 1], long[-1:]) for length in lengths if 2 < length < len(long)]
    return EvaluationSet("lengths", [], sorted([*whole, *cut], key=len))


def _compute_references(sets: Sequence[EvaluationSet], reference: Reference, progress: Progress) -> list[EvaluationSet]:
    """The same sets with the checkpoint's logits, computed in one go."""
    ids = [row for each in sets for row in each.ids]
    logits = reference(ids, lambda: progress.advance("checkpoint"))
    ends = np.cumsum([len(each.ids) for each in sets])
    spans = [slice(end - len(each.ids), end) for each, end in zip(sets, ends, strict=True)]
    shares = [{kind: rows[span] for kind, rows in logits.items()} for span in spans]
    return [replace(each, reference=share) for each, share in zip(sets, shares, strict=True)]


def _arithmetics(manifest: Manifest) -> set[str]:
    """Each has an oracle."""
    return {artifact.activations for artifact in manifest.artifacts}


def _golden_drift(stored: EvaluationSet, computed: EvaluationSet) -> float:
    if stored.reference is None or computed.reference is None:
        raise ValueError("both need logits")
    pairs = zip(stored.reference[CHECKPOINT], computed.reference[CHECKPOINT], strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)
