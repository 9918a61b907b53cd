"""A worker's first second: everything slow that its first task waits for, at once."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench import UserError
from bench.recipes import Data, Fetched, Outcomes, Work
from bench.store.machine import share_cores
from bench.store.records import Store
from bench.store.tasks import Hooks, Settings

if TYPE_CHECKING:
    from bench.lab.images.load import Images
    from bench.lab.worker import Lab


def begin(settings: Settings, hooks: Hooks, data: Data | None = None) -> Lab:
    """A lab for this process; the images of `data`, if they are here, are decoded while torch is loaded."""
    share_cores()  # a worker of Ray's has another parent
    images: dict[tuple[str, str, str], Images] = {}

    def read(data: Data) -> None:
        # Whatever cannot be read without a download is downloaded, or refused, when it is asked for.
        with contextlib.suppress(UserError):
            images[data.source] = of(data, settings.data_root, kept=Store(settings.root).images)

    with ThreadPoolExecutor(1) as reader:
        if data is not None:
            from bench.lab.images.load import of

            reader.submit(read, data)
        with uncollected():
            from bench.lab.worker import Lab
    return Lab(settings, hooks, images)


def first_images(order: Iterable[Work]) -> Data | None:
    """The images that work in this order needs first."""
    for work in order:
        if not isinstance(work, Fetched):
            return work.examples.data if isinstance(work, Outcomes) else work.data
    return None


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for garbage, and never look through what was imported.

    Importing torch makes some hundred thousand objects that live as long as the process; searching
    them takes a fifth of the import, and again whenever the process looks for garbage later.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
        gc.freeze()
