"""Which instrument is the first to name each false defence of `tests/fakes.py`, around a small undefended network.

`python tests/benchmarks/diagnosed_fakes.py [IMAGES [NAME ...]]`, with `tests` on PYTHONPATH: a row of Markdown each.
"""

from __future__ import annotations

import copy
import sys
import time

import torch
from fakes import FAKES
from oracles import streams, test_images, trained

from bench.lab.compute.passes import Compute
from bench.lab.examine.diagnose import diagnose
from bench.models.classifier import Plain


def main(n: int = 32, *names: str) -> None:
    base = trained(False).net
    images, labels = test_images(n)
    print("| false defence | first mark | its figure | seconds until then |")
    print("| --- | --- | --- | ---: |")
    for name, fake in ((name, FAKES[name]) for name in names or FAKES):
        torch.manual_seed(0)
        start = time.perf_counter()
        model = Plain(fake(copy.deepcopy(base)).eval(), 10)
        found = diagnose(model, images, labels, streams(), Compute(torch.device("cpu")), queries=100)
        try:
            mark = next((one for one in found if one.verdict == "suspicious"), None)
        except Exception as error:
            print(f"| {name} | ended with {type(error).__name__}: {error} | | |", flush=True)
            continue
        words = "none | " if mark is None else f"`{mark.check}` | {mark.figure}"
        print(f"| {name} | {words} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
