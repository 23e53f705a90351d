"""The reference logits that `pocketbert check` measures artifacts against: the checkpoint's, and its oracles'.

Takes a checkpoint, the manifest of a bundle made from it, and token ids. Gives float32 logits by the name of their
arithmetic: fp32 is the checkpoint's own, the others are what the manifest's artifacts compute with.
Leaves out: tokenizing and judging (runtime/parity.py), which reaches `compute` by the entry point group
`pocketbert.reference`, because the runtime imports nothing of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pocketbert.export.checkpoint import Checkpoint, CheckpointError, load
from pocketbert.export.encoder import Encoder, build
from pocketbert.export.quantize import make_oracle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pocketbert.runtime.manifest import Manifest

CHECKPOINT = "fp32"
SHOWN = 12  # digits of a hash that tell two apart


def compute(
    checkpoint: str,
    manifest: Manifest,
    ids_list: Sequence[NDArray[np.int32]],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float32]]:
    """The logits of `ids_list`, float32 (texts, labels), by fp32 and by each artifact's `activations`.

    `advance` is called after each text of each.

    Raises CheckpointError where the bundle was not made from `checkpoint`.
    """
    loaded = load(checkpoint, manifest.source["ignored_tensors"])
    _check_origin(loaded, manifest)
    encoder = build(replace(loaded.config, positions=manifest.max_length), loaded.tensors)
    names = {CHECKPOINT, *(artifact.activations for artifact in manifest.artifacts)}
    return {name: _logits(make_oracle(encoder, name, manifest.scheme), ids_list, advance) for name in sorted(names)}


def _check_origin(checkpoint: Checkpoint, manifest: Manifest) -> None:
    made_from = manifest.source["weights_sha256"]
    if checkpoint.weights_sha256 != made_from:
        raise CheckpointError(
            f"the bundle was made from weights {made_from[:SHOWN]}…, {checkpoint.name} has "
            f"{checkpoint.weights_sha256[:SHOWN]}…: pass the checkpoint it was exported from"
        )
    if tuple(checkpoint.labels) != manifest.labels or checkpoint.multi_label != manifest.multi_label:
        raise CheckpointError(
            f"{checkpoint.name} has the labels {', '.join(checkpoint.labels)}, the bundle has "
            f"{', '.join(manifest.labels)}: export again"
        )


def _logits(
    encoder: Encoder, ids_list: Sequence[NDArray[np.int32]], advance: Callable[[], None]
) -> NDArray[np.float32]:
    import numpy as np
    import torch

    rows = []
    with torch.inference_mode():
        for ids in ids_list:
            rows.append(encoder(torch.from_numpy(ids[None]))[0].numpy())
            advance()
    return np.stack(rows)
