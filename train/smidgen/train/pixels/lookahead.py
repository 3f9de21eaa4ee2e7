"""Work done in threads a little ahead of whoever takes the results, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """``work(item)`` of each item, in order, with at most ``ahead`` results that wait or are made.

    An exception of ``work`` is raised where its result would have come. Whatever ends the loop
    over the results (an exception, Ctrl-C, ``break``), work not yet begun is dropped and the
    threads end before the next statement is reached.
    """
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="smidgen-pixels")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def decoding_threads() -> int:
    """A thread for each core that this process may use: decoders let go of Python's lock."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
