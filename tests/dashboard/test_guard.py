"""Every route of every port, from the route tables themselves: one that is added is one that is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.datastructures import Headers

from libhive.problems import Problem
from services.dashboard.guard import PUBLIC, check_host, check_site, is_public
from services.dashboard.settings import Settings
from tests.dashboard.conftest import Dashboard

HOSTS = frozenset({"127.0.0.1:7000", "localhost:7000", "[::1]:7000"})


def routes(dashboard: Dashboard) -> list[tuple[int, str, str]]:
    """(port, method, path) of everything there is, with the parameters filled in."""
    web, port = dashboard.service.web, dashboard.port
    tables = [(port, web.dashboard_routes()), (port + 1101, web.agent_routes("iris"))]
    found = []
    for at, table in tables:
        for route in table:
            path = re.sub(
                r"{(\w+)(:\w+)?}", lambda m: {"name": "iris", "number": "7"}.get(m[1], "x"), route.path
            )
            found += [(at, method, path) for method in route.methods or () if method != "HEAD"]
    return found


def unsafe(dashboard: Dashboard) -> list[tuple[int, str, str]]:
    return [row for row in routes(dashboard) if row[1] not in ("GET", "HEAD")]


async def ask(
    client: httpx.AsyncClient, url: str, method: str, headers: dict[str, str], body: Any = None
) -> str:
    """The problem's code, or the status."""
    client.headers.pop("origin", None)
    client.headers.pop("sec-fetch-site", None)
    async with client.stream(method, url, headers=headers, json=body) as response:
        if response.headers["content-type"].startswith("text/event-stream"):
            return "200"
        text = await response.aread()
    return str(response.json()["code"]) if response.status_code >= 400 and text else str(response.status_code)


async def test_every_route_is_documented(dashboard: Dashboard) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboard-api.md").read_text()
    general, own = page.split("## An agent's port")
    web = dashboard.service.web
    for text, table in ((general, web.dashboard_routes()), (own, web.agent_routes("iris"))):
        for route in table:
            for method in (route.methods or set()) - {"HEAD"}:
                shown = f"`{method} {route.path.replace(':path', '')}`"
                assert shown in text, f"docs/dashboard-api.md does not name {shown}"
    for button in (*web.dashboard_buttons(), *web.agent_buttons()):
        row = next(line for line in page.splitlines() if f"`POST {button.path}`" in line)
        fields = {field.name for field in msgspec.structs.fields(button.form)} - {"id"}
        assert all(f"`{field}`" in page for field in fields), row


async def test_there_are_routes_to_test(dashboard: Dashboard) -> None:
    assert len(unsafe(dashboard)) == 31
    assert len(routes(dashboard)) == 51


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1.evil.example:7000",
        "localhost:1",
        "",
        "0.0.0.0:7000",
    ],
)
async def test_a_wrong_host_is_refused_everywhere(dashboard: Dashboard, host: str) -> None:
    browser = await dashboard.browser()
    for port, method, path in routes(dashboard):
        given = {"host": host, "sec-fetch-site": "same-origin"}
        code = await ask(browser, dashboard.url(path, port), method, given, {} if method == "POST" else None)
        assert code == "bad-host", (method, path)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:{port}", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:{port}", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    ],
)
async def test_a_change_from_elsewhere_is_refused_on_every_unsafe_route(
    dashboard: Dashboard, hive: Any, given: dict[str, str]
) -> None:
    browser = await dashboard.browser()
    for port, method, path in unsafe(dashboard):
        headers = {name: value.format(port=port) for name, value in given.items()}
        assert await ask(browser, dashboard.url(path, port), method, headers, {}) == "bad-origin", (
            path,
            headers,
        )
    assert not [
        request for peer in hive.all for actor, _, request in peer.heard if type(request).__name__ in CHANGES
    ]


CHANGES = {
    "Send",
    "Approve",
    "Deny",
    "Destroy",
    "Start",
    "Stop",
    "Restart",
    "Rebuild",
    "Spawn",
    "SetHold",
    "Answer",
    "AckInbox",
}


async def test_an_agents_page_cannot_press_the_dashboards_buttons(dashboard: Dashboard) -> None:
    """The cookie goes along to every port of the host; the origin tells them apart."""
    browser = await dashboard.browser()
    from_the_page = {"origin": dashboard.url("", dashboard.port + 1101), "sec-fetch-site": "same-site"}
    said = await browser.post("/api/send", json={"to": ["iris"], "body": "x"}, headers=from_the_page)
    assert said.json()["code"] == "bad-origin"


async def test_nothing_but_the_login_page_is_there_without_a_session(dashboard: Dashboard) -> None:
    for port, method, path in routes(dashboard):
        if is_public(method, path):
            continue
        async with dashboard.stranger(port) as stranger:
            stranger.cookies.set(dashboard.settings.cookie, "A" * 43)
            said = await stranger.request(method, path, json={} if method == "POST" else None)
        if path == "/":
            assert said.status_code == 303
            assert said.headers["location"] == dashboard.url("/login")
        else:
            assert said.status_code == 401, (method, path)
            assert said.json()["code"] == "no-session"


def test_what_is_public_is_this_and_no_more() -> None:
    assert sorted(PUBLIC) == [("GET", "/login"), ("POST", "/api/login")]
    assert not is_public("POST", "/static/app/main.js")


async def test_only_small_json_gets_in(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    for port, _, path in unsafe(dashboard):
        url, good = (
            dashboard.url(path, port),
            {"sec-fetch-site": "same-origin", "origin": dashboard.url("", port)},
        )
        form = await browser.post(url, data={"a": "b"}, headers=good)
        assert form.json()["code"] == "wrong-type", path
        plain = await browser.post(url, content=b"{}", headers={**good, "content-type": "text/plain"})
        assert plain.json()["code"] == "wrong-type", path
        large = b'{"x": "%s"}' % (b"x" * 300_000)
        json = {**good, "content-type": "application/json"}
        assert (await browser.post(url, content=large, headers=json)).status_code == 413, path

        async def pieces(large: bytes = large) -> Any:
            for at in range(0, len(large), 50_000):
                yield large[at : at + 50_000]

        assert (await browser.post(url, content=pieces(), headers=json)).json()["code"] == "too-large", path
        for bad in (b"{", b"[]", b"null", b'{"nobody": 1}', b"\xff", b"[" * 100_000):
            said = await browser.post(url, content=bad, headers=json)
            assert said.status_code == 400, (path, bad[:20], said.text)
            assert said.json()["code"] == "bad-request"


async def test_get_changes_nothing(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    for port, _, path in unsafe(dashboard):
        headers = {"origin": dashboard.url("", port)}
        said = await browser.get(dashboard.url(path, port), headers=headers)
        assert said.status_code in (404, 405), path


async def test_data_is_not_read_by_other_sites_but_a_page_may_be_opened_from_them(
    dashboard: Dashboard,
) -> None:
    browser = await dashboard.browser()
    for path in ("/api/state", "/api/messages", "/api/proposals/7", "/events/stream"):
        for site in ("cross-site", "same-site"):
            assert await ask(browser, dashboard.url(path), "GET", {"sec-fetch-site": site}) == "bad-origin"
    assert await ask(browser, dashboard.url("/"), "GET", {"sec-fetch-site": "cross-site"}) == "200"


async def test_every_answer_carries_the_policy(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    for path in ("/", "/login", "/static/style.css", "/api/state", "/api/nothing", "/nothing"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]


def test_two_hosts_or_two_origins_are_one_too_many() -> None:
    twice = Headers(raw=[(b"host", b"127.0.0.1:7000"), (b"host", b"127.0.0.1:7000")])
    with pytest.raises(Problem, match="host"):
        check_host(twice, HOSTS)
    origin = (b"origin", b"http://127.0.0.1:7000")
    with pytest.raises(Problem):
        check_site(Headers(raw=[(b"host", b"127.0.0.1:7000"), origin, origin]), HOSTS, safe=False, page=False)


def test_more_hosts_can_be_named() -> None:
    settings = Settings.from_environment({"HIVE_DASHBOARD_HOSTS": "Hive.example.org, tunnel:9000"})
    assert {"hive.example.org:7000", "tunnel:9000", "localhost:7000"} <= settings.hosts(7000)
    for bad in ("a b", "http://x", "-x", "x:123456"):
        with pytest.raises(Problem, match="HIVE_DASHBOARD_HOSTS"):
            Settings.from_environment({"HIVE_DASHBOARD_HOSTS": bad})
