"""Running a command for the host, to look around in the cage: as the agent, with its way out, and with none of the
harness's own things."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Any

from libhive.harness.settings import Settings
from libhive.messages.lifecycle import EXEC_OUTPUT_BYTES_MAX
from libhive.problems import BadRequest

_CHUNK = 1 << 16


async def run(
    argv: list[str], timeout_seconds: int, settings: Settings, way_out: Mapping[str, str]
) -> dict[str, Any]:
    """Its end, and its output as it came. After the time it is killed, with its process group; the exit code is -1."""
    if any("\0" in word for word in argv):
        raise BadRequest("an argument has no NUL in it")
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={
                "PATH": settings.path,
                "LANG": settings.lang,
                "HOME": str(settings.state / "home"),
                "TERM": "dumb",
                **way_out,
            },
            cwd=settings.state,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return {"exit_code": 127, "output": f"{argv[0]}: {error.strerror}\n", "truncated": False}
    output = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            await _collect(process, output)
            code = await process.wait()
    except TimeoutError:
        code = -1
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    text = bytes(output[:EXEC_OUTPUT_BYTES_MAX]).decode(errors="replace")
    return {"exit_code": code, "output": text, "truncated": len(output) > EXEC_OUTPUT_BYTES_MAX}


async def _collect(process: asyncio.subprocess.Process, output: bytearray) -> None:
    """Reads to the end and keeps the beginning, so that a long output does not stop its writer."""
    assert process.stdout is not None
    while chunk := await process.stdout.read(_CHUNK):
        output += chunk[: EXEC_OUTPUT_BYTES_MAX + 1 - len(output)]
