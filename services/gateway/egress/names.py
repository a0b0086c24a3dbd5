"""Names to addresses. Each look-up has a thread of its own, which ends when the system's resolver does: the default pool
is what the model's traffic looks names up in, and a slow server of names must not fill it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from concurrent.futures import Future

from libhive.destinations import Address, plain


async def addresses(host: str, slots: asyncio.Semaphore, seconds_max: float) -> list[Address]:
    """In the order in which they should be tried; none when there is no such name, or no answer in time.

    A slot is free again when its thread has ended, not when nobody waits for it any more.
    """
    loop = asyncio.get_running_loop()
    future: Future[list[Address]] = Future()
    with contextlib.suppress(TimeoutError, OSError, UnicodeError):
        async with asyncio.timeout(seconds_max):
            await slots.acquire()

            def work() -> None:
                _run(future, host)
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(slots.release)

            threading.Thread(target=work, name=f"look up {host}", daemon=True).start()
            return await asyncio.wrap_future(future)
    return []


def is_own(address: Address) -> bool:
    """Whether it is this host's: the kernel then chooses it as the way's own end. Nothing is sent."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # also where there is no IPv6 at all: then nobody connects to such an address either
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(address), 9))
        return ipaddress.ip_address(sock.getsockname()[0]) == address
    return False


def _run(future: Future[list[Address]], host: str) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(_look_up(host))
    except Exception as error:  # noqa: BLE001 - raised by whoever waits
        future.set_exception(error)


def _look_up(host: str) -> list[Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    texts = [str(each[4][0]).partition("%")[0] for each in found]
    return [plain(ipaddress.ip_address(text)) for text in dict.fromkeys(texts)]
