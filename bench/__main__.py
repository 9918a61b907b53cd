"""`python -m bench`."""

import atexit
import contextlib
import os
import sys

from bench.cli.app import main
from bench.store.machine import share_cores


def enter() -> None:
    """Run the command line and end the process."""
    share_cores()
    status: list[int] = []
    atexit.register(leave, status)  # registered first, called last: whoever else has something to end has ended it
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            status.append(end.code)
        raise


def leave(status: list[int]) -> None:
    """End the process without taking it apart, which for all that torch has made takes up to a second."""
    if status:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the ordinary end says so
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status[0])


if __name__ == "__main__":
    enter()
