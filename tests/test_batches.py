import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.batches import batched, in_order


@given(st.integers(0, 20), st.integers(1, 7), st.integers(1, 3))
def test_every_item_comes_once_and_in_order(n: int, size: int, n_workers: int) -> None:
    found = list(in_order(batched(range(n), size), list, n_workers))
    assert [i for batch in found for i in batch] == list(range(n))
    assert all(len(batch) == size for batch in found[:-1])


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_was_read_before_a_bad_item_comes_before_the_error(n_workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("bad item")

    results = in_order(batched(items(), 2), list, n_workers)
    assert [next(results) for _ in range(3)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="bad item"):
        next(results)


def test_batches_are_under_way_at_once_and_no_more_is_read_than_needed() -> None:
    n_read = 0
    both = threading.Barrier(2, timeout=10)

    def items() -> Iterator[int]:
        nonlocal n_read
        for i in range(100):
            n_read += 1
            yield i

    def work(batch: list[int]) -> list[int]:
        both.wait()  # breaks unless two batches meet here
        return batch

    results = in_order(batched(items(), 1), work, 2)
    assert next(results) == [0]
    assert n_read <= 6
    results.close()  # type: ignore[attr-defined]
