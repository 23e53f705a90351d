"""What a user would pick instead: the same checkpoint as ONNX, quantized by ONNX Runtime's dynamic int8.

Takes a checkpoint. Returns an .onnx file. Leaves out: running it (runtime/engines), and fusing by
onnxruntime.transformers, whose output its own quantizer refuses for these models.

The road is the documented one: torch.onnx export, `quant_pre_process`, `quantize_dynamic(per_channel=True)`. Without
the second step all of ALBERT's layer but its first use stays in float: the quantizer does not see that they share it.
It is for its time, not its answers: without VNNI its products overflow 16 bits, and `reduce_range` would be needed.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.runtime.manifest import (
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    make_outputs,
)

if TYPE_CHECKING:
    from pocketbert.export.checkpoint import Checkpoint

OPSET = 17  # has LayerNormalization as one op
EXAMPLE_LENGTH = 16  # tokens; the length stays dynamic
AUTO_CLASSES = {
    SEQUENCE_CLASSIFICATION: "AutoModelForSequenceClassification",
    TOKEN_CLASSIFICATION: "AutoModelForTokenClassification",
    QUESTION_ANSWERING: "AutoModelForQuestionAnswering",
}


def export_onnxruntime(source: str, folder: Path, task: str | None = None, pairs: bool = False) -> Path:
    """Writes model.int8.onnx for the checkpoint `source` into `folder`; `task` and `pairs` as load_checkpoint takes
    them. Raises CheckpointError, ImportError.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, ready, int8 = (folder / f"model.{stage}.onnx" for stage in ("float", "ready", "int8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            _export_float(load_checkpoint(source, task=task, pairs=pairs), plain)
            # Symbolic shape inference gives up on these graphs; the rest of the preparation is what matters.
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            quantize_dynamic(ready, int8, per_channel=True, weight_type=QuantType.QInt8)
        finally:
            logging.disable(logging.NOTSET)
    return int8


def _export_float(checkpoint: Checkpoint, target: Path) -> None:
    import torch

    ids = torch.ones(1, EXAMPLE_LENGTH, dtype=torch.int64)
    inputs = ["input_ids", "attention_mask"]
    outputs = make_outputs(checkpoint.config.task, checkpoint.config.num_labels)
    by_token = [output.name for output in outputs if output.by_token]
    torch.onnx.export(
        _load_model(checkpoint),
        (ids, torch.ones_like(ids)),
        str(target),
        input_names=inputs,
        output_names=[output.name for output in outputs],
        dynamic_axes={name: {1: "length"} for name in (*inputs, *by_token)},
        opset_version=OPSET,
        dynamo=False,
    )


def _load_model(checkpoint: Checkpoint) -> Any:
    """Hugging Face's model, which finds token types by itself where it has any: an engine passes none."""
    import torch
    import transformers

    from pocketbert.export.encoder import find_second

    auto = getattr(transformers, AUTO_CLASSES[checkpoint.config.task])
    model = auto.from_pretrained(checkpoint.folder, attn_implementation="eager").eval()
    if checkpoint.config.separator_id is None:
        return model
    separator = checkpoint.config.separator_id

    class Typed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            types = find_second(input_ids[0], separator, torch.float32).long()[None]
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types)

    return Typed().eval()
