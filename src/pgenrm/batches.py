"""Work on many items in batches, several at once, with results in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size`; when reading fails, what was read before comes first."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def in_order(
    batches: Iterator[list[T]], work: Callable[[list[T]], R], n_workers: int
) -> Iterator[R]:
    """Yield `work(batch)` for every batch, in order, with up to `n_workers` under way at once.

    Batches are read only as far as needed. When reading fails, what is under way comes first.
    """
    if n_workers == 1:
        yield from map(work, batches)
        return
    executor = ThreadPoolExecutor(n_workers, thread_name_prefix="pgenrm")
    under_way: deque[Future[R]] = deque()
    failure: Exception | None = None
    try:
        while True:
            batch: list[T] | None = None
            if len(under_way) < 2 * n_workers and failure is None:
                try:
                    batch = next(batches, None)
                except Exception as error:  # what is under way is paid for
                    failure = error
            if batch:
                under_way.append(executor.submit(work, batch))
            elif under_way:
                yield under_way.popleft().result()
            elif failure:
                raise failure
            else:
                return
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
