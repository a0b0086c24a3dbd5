"""What something will come to, told at once.

asyncio's Future tells whoever waits in a later round of the loop, by a handle and a context of its own for each; a broker
answers thousands a second, many of them by one commit. A Promise calls back where it is kept, in the order in which it
was asked, and can be awaited like a Future. Whoever is called back must not do long work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, Union

T = TypeVar("T")


class Promise(Generic[T]):
    """To be used within one event loop. Nothing is said of a problem for which nobody asked."""

    __slots__ = ("_callbacks", "_cancelled", "_done", "_problem", "_result")

    def __init__(self) -> None:
        self._done = self._cancelled = False
        self._result: Any = None
        self._problem: BaseException | None = None
        self._callbacks: list[Callable[[Promise[T]], object]] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if future.done() else future.set_result(None))
            yield from future
        return self.result()

    def add_done_callback(self, callback: Callable[[Promise[T]], object]) -> None:
        """Called at once when it is done already."""
        if self._done:
            self._callbacks = [callback]
            self._tell()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def set_result(self, result: T) -> None:
        if self._done:
            raise asyncio.InvalidStateError("done already")
        self._done, self._result = True, result
        if self._callbacks is not None:
            self._tell()

    def set_exception(self, problem: BaseException) -> None:
        self._end(problem)

    def cancel(self) -> bool:
        """Nobody waits for it any more; what was promised is done all the same."""
        if self._done:
            return False
        self._cancelled = True
        self._end(asyncio.CancelledError())
        return True

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        return self._cancelled

    def exception(self) -> BaseException | None:
        """Raises CancelledError when it was cancelled."""
        self._expect_done()
        if self._cancelled and self._problem:
            raise self._problem
        return self._problem

    def outcome(self) -> T | BaseException | None:
        """The result or the problem; None when it was cancelled."""
        self._expect_done()
        if self._cancelled:
            return None
        return self._result if self._problem is None else self._problem

    def result(self) -> T:
        self._expect_done()
        if self._problem is not None:
            raise self._problem
        return self._result  # type: ignore[no-any-return]

    def _expect_done(self) -> None:
        if not self._done:
            raise asyncio.InvalidStateError("not done yet")

    def _end(self, problem: BaseException) -> None:
        if self._done:
            raise asyncio.InvalidStateError("done already")
        self._done, self._problem = True, problem
        if self._callbacks is not None:
            self._tell()

    def _tell(self) -> None:
        """A callback's own failure is not that of whoever keeps the promise, nor of those who wait beside it."""
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - as asyncio does with a callback's
                context = {"message": f"{callback!r:.200} failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)


Waited = Union["asyncio.Future[Any]", Promise[Any]]
