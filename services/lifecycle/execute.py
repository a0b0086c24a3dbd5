"""A command inside an agent's cage, by its harness: under exactly the controls the cage has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from libhive.messages.lifecycle import EXEC_OUTPUT_BYTES_MAX, Executed
from libhive.problems import Conflict, Unavailable
from libhive.web.page import page_socket

MARGIN_SECONDS = 1.5
"""The harness ends the command at its time limit, and then still has to answer."""
ANSWER_BYTES_MAX = 8 * EXEC_OUTPUT_BYTES_MAX
"""JSON may spell one byte of output as six."""


async def execute(page: Path, argv: list[str], timeout_seconds: int) -> Executed:
    """Raises Unavailable when the harness does not answer, Conflict when what it answers is not an answer."""
    import httpx  # not before it is needed: it would be a third of lifecycle's start

    try:
        with page_socket(page) as address:
            limit = timeout_seconds + MARGIN_SECONDS  # httpx's own is per read, and a cage may drip
            async with asyncio.timeout(limit):
                status, body = await _post(address, {"argv": argv, "timeout_seconds": timeout_seconds}, limit)
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(
            f"the agent's harness did not answer ({reason:.200})", "is its cage up? hive-admin agents"
        ) from error
    if status != 200:
        raise Conflict(f"the agent's harness refused: {body[:300].decode(errors='replace')}")
    return _understood(body)


async def _post(address: str, order: dict[str, object], timeout_seconds: float) -> tuple[int, bytes]:
    import httpx

    transport = httpx.AsyncHTTPTransport(uds=address)
    headers = {"accept-encoding": "identity"}
    async with (
        httpx.AsyncClient(
            transport=transport, timeout=timeout_seconds, trust_env=False, headers=headers
        ) as client,
        client.stream("POST", "http://agent/exec", json=order) as response,
    ):
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                raise Conflict("the agent's harness answered more than it may")
        return response.status_code, bytes(body)


def _understood(body: bytes) -> Executed:
    try:
        done = msgspec.json.decode(body, type=Executed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Conflict(f"the agent's harness gave an answer that cannot be understood: {error}") from error
    output = done.output.encode(errors="replace")
    if len(output) <= EXEC_OUTPUT_BYTES_MAX:
        return done
    cut = output[:EXEC_OUTPUT_BYTES_MAX].decode(errors="ignore")
    return Executed(exit_code=done.exit_code, output=cut, truncated=True)
