"""`PYTHONPATH=. .venv/bin/python -m tests.dashboard.demo [--empty]`: the pages with a rich hive of stand-ins behind them.

For working on the front end: prints a login link, and makes something happen every few seconds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from libhive.clock import now_ms
from libhive.messages import broker
from libhive.paths import Paths
from services.dashboard.settings import Settings
from tests.dashboard.cage import Cage
from tests.dashboard.conftest import running
from tests.dashboard.rich import Hive, mail_id, receipts


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hd", dir="/tmp") as root:
        paths = Paths(run=Path(root) / "r", state=Path(root) / "s")
        hive = Hive(paths, empty="--empty" in sys.argv)
        hive.start()
        await Cage(paths, "iris").start()
        async with running(paths, Settings.from_environment()) as dashboard:
            print(dashboard.url(f"/login#{await dashboard.token()}"), flush=True)
            number = 1000
            while True:
                await asyncio.sleep(2.5)
                if "--empty" in sys.argv:
                    continue
                await live(hive, number)
                number += 1


async def live(hive: Hive, number: int) -> None:
    base = receipts()[4]
    sent = broker.Receipt(
        id=mail_id(number),
        sender="iris",
        recipient="atlas",
        kind="message",
        state="stored",
        attempts=0,
        stored_ms=now_ms(),
        body=f"sketch {number} is done",
    )
    hive.broker.publish(broker.MessageStored(receipt=sent))
    for step in ("offered", "seen", "acked"):
        await asyncio.sleep(0.4)
        hive.broker.publish(
            broker.ReceiptChanged(
                id=sent.id, recipient=base.recipient, state=step, at_ms=now_ms(), attempts=1
            )
        )  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
