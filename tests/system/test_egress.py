"""The way out in a whole hive: proposed, approved, deployed without a restart, learned, and proposed again."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libhive.messages.approvals import Proposed
from libhive.names import AgentName
from tests.system.conftest import TOGETHER, Story

pytestmark = TOGETHER

ADDRESS = "127.0.0.2"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "hello.txt").write_text("hello from the host\n")
    server = http.server.ThreadingHTTPServer((ADDRESS, 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{ADDRESS}:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


async def approve(story: Story, number: int) -> None:
    await story.admin("approve", str(number))
    assert f"deployed/{number}" in await story.tags("hm1nd")


async def test_a_way_out_is_deployed_to_the_cage_that_runs_and_learned_and_proposed(
    story: Story, site: str
) -> None:
    hive = story.hive
    await hive.wait_for_agent("hm1nd")
    before = await hive.lifecycle.agent(AgentName("hm1nd"))
    assert before is not None

    async def get() -> str:
        done = await hive.lifecycle.exec("hm1nd", ["curl", "-sS", "-m", "10", f"http://{site}/hello.txt"], 30)
        return done.output

    async def propose(mode: str, *allow: str) -> int:
        toml = f'model = "haiku" # dear\n\n[egress]\nmode = "{mode}"\nallow = {list(allow)}\n'
        files, approvals = {"agent.toml": toml}, story.hive.approvals
        made: Proposed = await approvals.propose("hm1nd", files, f"the way out: {mode}")
        return made.number

    async def until_mode(mode: str) -> None:
        async def look() -> Any:
            report = await hive.gateway.egress("hm1nd")
            return report.known and report.mode == mode

        await story.until(f"the way out {mode}", look)

    assert "lets nothing out" in await get()
    await approve(story, await propose("learn", site))
    await until_mode("learn")
    assert await get() == "hello from the host\n"
    assert "used since it learns: 1" in await story.admin("egress", "hm1nd")

    said = await story.admin("egress", "hm1nd", "--propose")
    assert "egress.mode: learn -> allow" in said
    await approve(story, 2)
    await until_mode("allow")
    config = await story.hive.approvals.read_config("hm1nd")
    assert config.spec.egress.allow == [site]
    assert "# dear" in config.files["agent.toml"]
    assert await get() == "hello from the host\n"

    await approve(story, await propose("allow"))
    await story.until("the list", lambda: _empty(story))
    assert "is not in the list" in await get()
    after = await hive.lifecycle.agent(AgentName("hm1nd"))
    assert after is not None
    assert (after.revision, after.generation, after.pid) == (3, before.generation, before.pid), (
        "the same cage"
    )


async def _empty(story: Story) -> bool:
    return not (await story.hive.gateway.egress("hm1nd")).allow
