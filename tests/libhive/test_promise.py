from __future__ import annotations

import asyncio
from typing import Any

import pytest

from libhive.promise import Promise


async def test_whoever_asked_is_told_at_once_and_in_order() -> None:
    promise: Promise[int] = Promise()
    told: list[str] = []
    promise.add_done_callback(lambda kept: told.append(f"first {kept.result()}"))
    promise.add_done_callback(lambda _: told.append("second"))
    promise.set_result(7)
    assert told == ["first 7", "second"]
    promise.add_done_callback(lambda _: told.append("late"))
    assert told[-1] == "late"


async def test_it_can_be_awaited_before_and_after() -> None:
    promise: Promise[int] = Promise()
    asyncio.get_running_loop().call_soon(promise.set_result, 7)
    assert await promise == 7
    assert await promise == 7
    assert await asyncio.gather(promise, promise) == [7, 7]


async def test_a_problem_is_raised_by_whoever_waits() -> None:
    promise: Promise[int] = Promise()
    asyncio.get_running_loop().call_soon(promise.set_exception, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await promise
    assert isinstance(promise.exception(), ValueError)


async def test_who_stops_waiting_does_not_undo_what_is_promised() -> None:
    promise: Promise[int] = Promise()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await promise
    promise.set_result(7)
    assert await promise == 7


async def test_a_cancelled_one_tells_so_once() -> None:
    promise: Promise[int] = Promise()
    told: list[bool] = []
    promise.add_done_callback(lambda kept: told.append(kept.cancelled()))
    assert promise.cancel()
    assert not promise.cancel()
    assert told == [True]
    with pytest.raises(asyncio.CancelledError):
        await promise


async def test_a_callback_that_fails_is_reported_and_stops_nobody() -> None:
    promise: Promise[int] = Promise()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail(_: Promise[Any]) -> None:
        raise ValueError("mine alone")

    promise.add_done_callback(fail)
    promise.add_done_callback(lambda _: told.append("next"))
    promise.set_result(7)
    assert [str(one) for one in told] == ["mine alone", "next"]


async def test_it_is_kept_once() -> None:
    promise: Promise[int] = Promise()
    with pytest.raises(asyncio.InvalidStateError):
        promise.result()
    promise.set_result(7)
    with pytest.raises(asyncio.InvalidStateError):
        promise.set_result(8)
