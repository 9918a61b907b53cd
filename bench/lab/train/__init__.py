"""Training from labels or from a teacher: fast, resumable after a kill at any moment, and told what went wrong."""

from bench.lab.train.loop import train
from bench.lab.train.options import Options

__all__ = ["Options", "train"]
