from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from libhive.paths import Paths
from libhive.problems import NotAllowed
from services.dashboard.sessions import Sessions
from services.dashboard.settings import Settings
from services.dashboard.store import Store
from tests.dashboard.conftest import Dashboard, running
from tests.dashboard.rich import Hive


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(paths: Paths, clock: Clock) -> Iterator[Sessions]:
    store = Store(paths.database("dashboard"))
    yield Sessions(store, Settings(), clock)
    store.close()


async def token(sessions: Sessions) -> str:
    return (await sessions.make_link()).url.partition("#")[2]


async def test_a_link_logs_in_once(sessions: Sessions) -> None:
    link = await token(sessions)
    secret = await sessions.log_in(link)
    assert sessions.find(f"other=1; hive-session-7000={secret}")
    with pytest.raises(NotAllowed, match="used up"):
        await sessions.log_in(link)


async def test_of_two_browsers_with_one_link_one_gets_in(sessions: Sessions) -> None:
    link = await token(sessions)
    outcomes = await asyncio.gather(*(sessions.log_in(link) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1


async def test_a_link_ends_after_a_minute(sessions: Sessions, clock: Clock) -> None:
    link = await sessions.make_link()
    assert link.expires_ms == clock.now + 60_000
    clock.now += 60_000
    with pytest.raises(NotAllowed):
        await sessions.log_in(link.url.partition("#")[2])


@pytest.mark.parametrize(
    "bad", ["", "x", "A" * 43, "A" * 42 + "\n", "'; DROP TABLE links; --" + "A" * 20, "é" * 43]
)
async def test_a_made_up_link_is_refused(sessions: Sessions, bad: str) -> None:
    await token(sessions)
    with pytest.raises(NotAllowed):
        await sessions.log_in(bad)


async def test_a_session_ends(sessions: Sessions, clock: Clock) -> None:
    cookie = f"hive-session-7000={await sessions.log_in(await token(sessions))}"
    found = sessions.find(cookie)
    assert found
    clock.now += 30 * 86_400_000
    assert sessions.find(cookie) is None


async def test_no_secret_lies_in_the_database(sessions: Sessions, paths: Paths) -> None:
    link = await token(sessions)
    other = await token(sessions)
    secret = await sessions.log_in(link)
    files = b"".join(path.read_bytes() for path in paths.own("dashboard").iterdir())
    for text in (link, other, secret):
        assert text.encode() not in files
    assert paths.database("dashboard").stat().st_mode & 0o777 == 0o600


async def test_sessions_do_not_pile_up(sessions: Sessions, clock: Clock) -> None:
    cookies = []
    for _ in range(105):
        clock.now += 1
        cookies.append(f"hive-session-7000={await sessions.log_in(await token(sessions))}")
    assert [bool(sessions.find(cookie)) for cookie in cookies] == [False] * 5 + [True] * 100


async def test_the_cookie_is_for_this_host_only_and_not_for_scripts(dashboard: Dashboard) -> None:
    async with dashboard.stranger() as browser:
        said = await browser.post("/api/login", json={"token": await dashboard.token()})
    cookie = said.headers["set-cookie"]
    assert cookie.startswith(f"hive-session-{dashboard.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


async def test_a_session_survives_a_restart_and_ends_with_logout(
    hive: Hive, paths: Paths, settings: Settings
) -> None:
    async with running(paths, settings) as first:
        cookies = (await first.browser()).cookies
    async with running(paths, settings) as second:
        browser = second.stranger()
        browser.cookies.update(cookies)
        assert (await browser.get("/api/state")).status_code == 200
        assert (await browser.post("/api/logout", json={})).status_code == 200
        assert (await browser.get("/api/state")).status_code == 401
        stolen = second.stranger()
        stolen.cookies.update(cookies)
        assert (await stolen.get("/api/state")).status_code == 401


async def test_a_stream_ends_with_its_session(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    other = await dashboard.browser()
    async with (
        browser.stream("GET", "/events/stream") as stream,
        other.stream("GET", "/events/stream") as going_on,
    ):
        await browser.post("/api/logout", json={})
        async with asyncio.timeout(3):
            async for _ in stream.aiter_raw():
                pass
        assert await anext(going_on.aiter_raw())
        assert dashboard.service._feed.watchers == 1
