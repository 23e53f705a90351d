"""The demo: two small checkpoints of our own, their recipe (train.py), and what they show (`python -m` this package).

It comes with a clone; the wheel leaves it out.
"""

from pathlib import Path

CHECKPOINTS = {name: Path(__file__).parent / name for name in ("distilbert", "albert")}
