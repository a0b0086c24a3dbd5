"""Which packages this host has: what a cage built from the host's own /usr can offer."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Iterable

QUERY_SECONDS_MAX = 10.0
CAGE_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


async def missing(names: Iterable[str]) -> list[str]:
    """Those that are neither installed by dpkg nor a program on the path. Names are
    `libhive.spec.PackageName`s."""
    unknown = [name for name in dict.fromkeys(names) if shutil.which(name, path=CAGE_PATH) is None]
    installed = await _installed(unknown) if unknown and shutil.which("dpkg-query") else frozenset()
    return [name for name in unknown if name not in installed]


def install_hint(names: Iterable[str]) -> str:
    return f"install it with: sudo apt-get install -y {shlex.join(names)}"


async def _installed(names: list[str]) -> frozenset[str]:
    process = await asyncio.create_subprocess_exec(
        "dpkg-query",
        "--show",
        "--showformat=${binary:Package} ${db:Status-Status}\n",
        "--",
        *names,
        env={"PATH": CAGE_PATH, "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(QUERY_SECONDS_MAX):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return frozenset()
    rows = (line.split() for line in output.decode("utf-8", "replace").splitlines())
    return frozenset(row[0].partition(":")[0] for row in rows if row[-1] == "installed")
