"""Work that a thread does ahead of its use."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Part = TypeVar("Part")
_END: Any = object()


def prefetch(parts: Iterator[Part], *, room: int = 2) -> Generator[Part, None, None]:
    """Pass on the same parts in the same order, each made in a thread while earlier ones are used.

    An error in the making of a part is raised where that part would have come. The thread ends with the iterator, or
    when it is closed: then at most `room` parts were made in vain.

    Args:
      parts: the parts; nothing else may read them from now on.
      room: largest number of parts that wait or are being made.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:

        def more() -> Future[Part]:
            return pool.submit(next, parts, _END)

        waiting = deque(more() for _ in range(room))
        try:
            while (part := waiting.popleft().result()) is not _END:
                waiting.append(more())
                yield part
        finally:
            pool.shutdown(cancel_futures=True)
