"""What a user would pick instead: the same checkpoint as ONNX, quantized by ONNX Runtime's dynamic int8.

Takes a checkpoint. Gives an .onnx file. Leaves out: running it (runtime/bench_worker.py), and fusing by
onnxruntime.transformers, whose output its own quantizer refuses for these models.

The road is the documented one: torch.onnx export, `quant_pre_process`, `quantize_dynamic(per_channel=True)`. Without
the second step all of ALBERT's layer but its first use stays in float: the quantizer does not see that they share it.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from pocketbert.export.checkpoint import load

OPSET = 17  # has LayerNormalization as one op
EXAMPLE_LENGTH = 16  # tokens; the length stays dynamic


def export_onnxruntime(source: str, folder: Path) -> Path:
    """Writes model.int8.onnx for the checkpoint `source` into `folder`. Raises CheckpointError, ImportError."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, ready, int8 = (folder / f"model.{stage}.onnx" for stage in ("float", "ready", "int8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            _export_float(load(source).folder, plain)
            # Symbolic shape inference gives up on these graphs; the rest of the preparation is what matters.
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            quantize_dynamic(ready, int8, per_channel=True, weight_type=QuantType.QInt8)
        finally:
            logging.disable(logging.NOTSET)
    return int8


def _export_float(checkpoint: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = torch.ones(1, EXAMPLE_LENGTH, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        str(target),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {1: "length"} for name in names},
        opset_version=OPSET,
        dynamo=False,
    )
