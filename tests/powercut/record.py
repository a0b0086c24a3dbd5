"""Recordings of the real broker: it runs under strace while agents work, and is stopped once and killed once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libhive.testing.hive import Hive
from tests.powercut.strace import CALLS, STRING_BYTES_MAX, Event, Reader
from tests.powercut.workload import Command, Crew

END_SECONDS_MAX = 20.0
STORE = "broker"


@dataclass(frozen=True, slots=True)
class Recording:
    """`directory` keeps what it was read from, so that a finding can be looked at again."""

    directory: Path
    events: list[Event]
    ledger: dict[str, Command]

    @classmethod
    def load(cls, directory: Path) -> Recording:
        kept = json.loads((directory / "ledger.json").read_text())
        reader = Reader(kept["store"])
        for trace in sorted(directory.glob("*.strace")):
            reader.read(trace)
        return cls(directory, reader.events, {item["id"]: Command(**item) for item in kept["ledger"]})


class TracedHive(Hive):
    """Its broker runs under strace; each of its lives is a trace of its own."""

    def __init__(self, traces: Path, module: Sequence[str]) -> None:
        super().__init__()
        self.traces, self.module, self.lives = traces, module, 0

    def spawn(self, service: str) -> None:
        assert service == STORE
        self.lives += 1
        options = (
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-y",
            "-xx",
            "-s",
            str(STRING_BYTES_MAX),
            "-e",
            "signal=none",
        )
        trace = ("-e", f"trace={CALLS}", "-o", str(self.traces / f"life-{self.lives}.strace"))
        with (self.root / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                ["strace", *options, *trace, sys.executable, "-m", *self.module],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def end(self, how: signal.Signals) -> None:
        """Ends the broker itself; strace then writes what it still has, and ends too."""
        os.kill(await self.pid_of(STORE), how)
        await asyncio.to_thread(self.processes.pop(STORE).wait, END_SECONDS_MAX)

    async def stop(self, service: str) -> int:
        """Only where a recording failed: strace would not pass a signal on, and its end would let the broker go on."""
        process = self.processes.pop(service)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        return await asyncio.to_thread(process.wait)


def record(directory: Path, seed: str, steps: int, pragmas: Sequence[str] = ()) -> Recording:
    """Without `pragmas` it is the product as it is that runs."""
    directory.mkdir(parents=True)
    asyncio.run(_record(directory, seed, steps, pragmas))
    return Recording.load(directory)


async def _record(directory: Path, seed: str, steps: int, pragmas: Sequence[str]) -> None:
    module = ("tests.powercut.hooked", *pragmas) if pragmas else ("services.broker",)
    hive = TracedHive(directory, module)
    async with hive:
        await hive.start(STORE)
        crew = Crew(hive, seed)
        await crew.board()
        work = asyncio.ensure_future(crew.work(steps))
        for share, how in ((0.35, signal.SIGTERM), (0.7, signal.SIGKILL)):
            await crew.reached(share, work)
            await hive.end(how)
            await hive.start(STORE)
        await work
        await hive.end(signal.SIGTERM)
        store = str(hive.paths.database(STORE).parent)
    kept = {"store": store, "ledger": [command.as_dict() for command in crew.ledger]}
    (directory / "ledger.json").write_text(json.dumps(kept))
