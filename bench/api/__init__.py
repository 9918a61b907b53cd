"""The harness in Python: `bench.evaluate(model, data)` and its parts, loaded by `import bench` when asked for."""

from __future__ import annotations

from bench.api.call import evaluate
from bench.api.compared import compare
from bench.api.diagnosis import diagnose
from bench.api.numbers import Number, Numbers
from bench.api.parts import attack, certify, judge
from bench.api.report import Report
from bench.api.sets import dataset, results

__all__ = [
    "Number", "Numbers", "Report", "attack", "certify", "compare", "dataset", "diagnose", "evaluate", "judge",
    "results",
]  # fmt: skip
