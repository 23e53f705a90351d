"""A reference evaluator for Core ML programs, for hosts that have no Core ML. It needs numpy and nothing else.

    evaluator = mil.load(Path("model.mlpackage"))
    evaluator.run({"input_ids": ids})     # {"logits": float32 (1, labels)}

Takes an .mlpackage that holds an ML program (iOS 15 and later). Returns its outputs.
Leaves out: Core ML itself, and any op that a BERT-like model does not have.

protobuf.py reads the wire format, weights.py the blob file, package.py the program; ops.py holds the ops and
evaluator.py runs them in the declared precision. A missing piece is refused by name.
"""

from pathlib import Path

from pocketbert.runtime.engines.coreml.mil.evaluator import Evaluator
from pocketbert.runtime.engines.coreml.mil.ops import UnsupportedOp
from pocketbert.runtime.engines.coreml.mil.package import read
from pocketbert.runtime.engines.coreml.mil.protobuf import UnreadableProgram

__all__ = ["Evaluator", "UnreadableProgram", "UnsupportedOp", "load"]


def load(package: Path) -> Evaluator:
    """Reads `package` and its constants. Raises UnreadableProgram or UnsupportedOp; the message names the package."""
    try:
        return Evaluator(read(package))
    except (UnreadableProgram, UnsupportedOp) as error:
        raise type(error)(f"{package.name}: {error}") from None
