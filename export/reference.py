"""The reference logits that `pocketbert check` measures artifacts against: the checkpoint's, and its oracles'.

Takes a checkpoint, the manifest of a bundle made from it, and token ids. Returns float32 logits, whatever the task, by
the name of their arithmetic: fp32 is the checkpoint's own, the others are what the manifest's artifacts compute with.
Leaves out: tokenizing and judging (runtime/check/parity.py), which reaches `compute` by the entry point group
`pocketbert.reference`, because the runtime imports nothing of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.export.calibration_texts import read_calibration_texts
from pocketbert.export.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from pocketbert.export.encoder import build_encoder, compute_logits
from pocketbert.export.quantize import hash_weights, make_oracles, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pocketbert.export.encoder import Encoder
    from pocketbert.runtime.manifest import Manifest

CHECKPOINT = "fp32"
SHOWN = 12  # digits of a hash that tell two apart


def compute(
    checkpoint: str,
    manifest: Manifest,
    ids_list: Sequence[NDArray[np.int32]],
    on_step: Callable[[], None] = lambda: None,
    calibrate: Path | None = None,
) -> dict[str, list[NDArray[np.float32]]]:
    """The logits of `ids_list` by fp32 and by each artifact's `activations`: float32 (labels,), (tokens, labels) or
    (tokens, 2) each.

    `on_step` is called after each text of each. `calibrate`: the texts that a bundle of 4 bits was calibrated by, where
    they are not the package's own.

    Raises CheckpointError where the bundle was not made from `checkpoint`, or calibrated by other texts.
    """
    loaded = load_checkpoint(checkpoint, manifest.source["ignored_tensors"], manifest.task, manifest.pairs)
    _check_origin(loaded, manifest)
    encoder = build_encoder(replace(loaded.config, max_position_embeddings=manifest.max_length), loaded.tensors)
    names = {CHECKPOINT, *(artifact.activations for artifact in manifest.artifacts)}
    texts = _read_calibration(loaded, manifest, calibrate)
    layers = manifest.calibration.eight_bit_layers if manifest.calibration else 0
    oracles = make_oracles(encoder, sorted(names), manifest.scheme, texts, eight_bit_layers=layers)
    _check_weights(oracles, manifest)
    return {name: compute_logits(unpack(oracle), ids_list, on_step) for name, oracle in oracles.items()}


def _read_calibration(checkpoint: Checkpoint, manifest: Manifest, file: Path | None) -> Sequence[Tensor]:
    if manifest.calibration is None:
        if file:
            raise CheckpointError(f"the bundle, {manifest.scheme}, was calibrated by no texts: leave --calibrate out")
        return ()
    texts = read_calibration_texts(checkpoint, file, manifest.max_length)
    if texts.sha256 != manifest.calibration.texts_sha256:
        raise CheckpointError(
            f"the bundle was calibrated by other texts than {texts.name}: pass --calibrate with the file that it was "
            "exported with"
        )
    return texts.ids


def _check_weights(oracles: Mapping[str, Encoder], manifest: Manifest) -> None:
    """An oracle with other whole numbers than the artifacts would measure its own rounding, not theirs."""
    calibration, oracle = manifest.calibration, oracles.get("int8")
    if calibration and oracle and hash_weights(oracle) != calibration.weights_sha256:
        raise CheckpointError(
            "this computer rounds the checkpoint to other weights than the bundle has: export it again here, or check "
            "it without --checkpoint"
        )


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
