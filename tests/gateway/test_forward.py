"""A real gateway process between a cage's door and an upstream on loopback, with a canary for a key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from libhive.messages.gateway import GatewayChanged, RequestServed
from libhive.problems import BadRequest
from services.gateway.exchange import Exchange, Refused

BODY = {"model": "claude-haiku-5-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def logged_in(hive: Any, upstream: Any, canary: str) -> Any:
    await hive.start(HIVE_UPSTREAM_URL=upstream.url, HIVE_UPSTREAM_SILENCE_SECONDS="1")
    await hive.gateway.login("api_key", canary)
    yield hive
    assert canary not in hive.log()
    assert canary not in str(hive.events)
    assert canary not in str(await hive.gateway.status())


async def test_the_hosts_key_is_put_on(logged_in: Any, upstream: Any, canary: str) -> None:
    answer = await logged_in.ask(
        BODY, authorization="Bearer of-the-cage", cookie="a=b", **{"anthropic-beta": "x-1"}
    )
    assert answer.status_code == 200
    assert answer.json()["content"] == [{"type": "text", "text": "hello"}]
    [(first, _, body)] = upstream.requests
    headers = upstream.headers()
    assert first == "POST /v1/messages?beta=true HTTP/1.1"
    assert json.loads(body) == BODY
    assert headers["x-api-key"] == canary
    assert headers["host"] == upstream.url.removeprefix("http://")
    assert headers["anthropic-beta"] == "x-1"
    assert not {"authorization", "cookie", "transfer-encoding"} & set(headers)


async def test_a_token_goes_as_bearer(hive: Any, upstream: Any, canary: str) -> None:
    await hive.start(HIVE_UPSTREAM_URL=upstream.url)
    token = canary.replace("api03", "oat01")
    await hive.gateway.login("oauth_token", token)
    await hive.ask(BODY)
    assert upstream.headers()["authorization"] == f"Bearer {token}"
    assert upstream.headers()["anthropic-beta"] == "oauth-2025-04-20"
    assert "x-api-key" not in upstream.headers()
    assert (await hive.gateway.status()).mode == "oauth_token"


async def test_usage_is_counted(logged_in: Any, until: Any) -> None:
    for _ in range(3):
        await logged_in.ask(BODY)
    await until(lambda: len(logged_in.seen(RequestServed)) == 3)
    served = logged_in.seen(RequestServed)[0]
    assert (served.agent, served.status, served.model) == ("iris", 200, "claude-haiku-5-5")
    assert (served.input_tokens, served.output_tokens) == (19, 7)
    [usage] = (await logged_in.gateway.status()).usage
    assert (usage.requests, usage.errors, usage.input_tokens, usage.output_tokens) == (3, 0, 57, 21)
    await logged_in.kill()
    await logged_in.start(HIVE_UPSTREAM_URL="http://127.0.0.1:1")
    report = await logged_in.gateway.status()
    assert (report.mode, report.usage) == ("api_key", [usage])


async def test_it_streams(logged_in: Any, upstream: Any, until: Any) -> None:
    """The first event is through before the upstream has said the second."""
    first_seen = asyncio.Event()

    async def script(reply: Any) -> None:
        await reply.start(
            content_type="text/event-stream",
            retry_after="3",
            anthropic_ratelimit_unified_status="allowed",
            set_cookie="a=b",
        )
        await reply.event(
            "message_start", message={"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}
        )
        await asyncio.wait_for(first_seen.wait(), 5)
        await reply.event("message_delta", usage={"output_tokens": 9})
        await reply.end()

    upstream.script = script
    client = await logged_in.client()
    async with client.stream("POST", "/v1/messages", json=BODY) as answer:
        chunks = answer.aiter_bytes()
        assert b"message_start" in await anext(chunks)
        first_seen.set()
        assert b"message_delta" in b"".join([chunk async for chunk in chunks])
    assert answer.headers["anthropic-ratelimit-unified-status"] == "allowed"
    assert answer.headers["retry-after"] == "3"
    assert "set-cookie" not in answer.headers
    await until(lambda: logged_in.seen(RequestServed))
    assert logged_in.seen(RequestServed)[0].output_tokens == 9


async def test_a_request_streams_up_too(logged_in: Any, upstream: Any) -> None:
    async def slowly() -> Any:
        for part in (b'{"messages"', b": []", b"}"):
            yield part
            await asyncio.sleep(0.05)

    answer = await (await logged_in.client()).post("/v1/messages", content=slowly())
    assert answer.status_code == 200
    assert upstream.requests[0][2] == b'{"messages": []}'
    assert upstream.headers()["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 529])
async def test_the_upstreams_errors_pass(
    logged_in: Any, upstream: Any, until: Any, canary: str, status: int
) -> None:
    said = {"type": "error", "error": {"type": "some_error", "message": f"your key {canary} is bad"}}
    upstream.script = lambda reply: reply.whole(status, said, retry_after="61")
    answer = await logged_in.ask(BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "61")
    assert answer.json() == said
    await until(lambda: logged_in.seen(RequestServed))
    report = await logged_in.gateway.status()
    assert report.usage[0].errors == 1
    assert report.last_error == ("" if status == 400 else f"{status} some_error: your key *** is bad")
    expected = [report.last_error] if status != 400 else []
    await until(lambda: [event.last_error for event in logged_in.seen(GatewayChanged)][1:] == expected)


async def test_an_upstream_that_is_not_there(hive: Any, canary: str) -> None:
    await hive.start(HIVE_UPSTREAM_URL="http://127.0.0.1:1")
    await hive.gateway.login("api_key", canary)
    answer = await hive.ask(BODY)
    assert answer.status_code == 502
    assert answer.json()["error"] == {"type": "api_error", "message": "the gateway cannot reach 127.0.0.1"}
    assert "502" in (await hive.gateway.status()).last_error
    assert "Traceback" not in hive.log()


async def test_an_upstream_that_hangs(logged_in: Any, upstream: Any) -> None:
    upstream.script = lambda reply: reply.gone()
    answer = await logged_in.ask(BODY)
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"


async def test_an_upstream_that_hangs_up(logged_in: Any, upstream: Any) -> None:
    async def script(reply: Any) -> None:
        reply.drop()

    upstream.script = script
    answer = await logged_in.ask(BODY)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "api_error"


@pytest.mark.parametrize("how", ["drops", "hangs"])
async def test_half_an_answer_never_passes_for_a_whole_one(
    logged_in: Any, upstream: Any, until: Any, how: str
) -> None:
    async def script(reply: Any) -> None:
        await reply.start(content_type="text/event-stream")
        await reply.event(
            "message_start", message={"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}
        )
        if how == "drops":
            reply.drop()
        else:
            await reply.gone()

    upstream.script = script
    with pytest.raises(httpx.RemoteProtocolError):
        await logged_in.ask(BODY)
    await until(lambda: logged_in.seen(RequestServed))
    report = await logged_in.gateway.status()
    assert report.usage[0].errors == 1
    assert "broke off" in report.last_error
    assert "Traceback" not in logged_in.log()


async def test_when_the_client_goes_the_upstream_is_told(logged_in: Any, upstream: Any, until: Any) -> None:
    gone = asyncio.Event()

    async def script(reply: Any) -> None:
        await reply.start(content_type="text/event-stream")
        await reply.event("message_start", message={"model": "m", "usage": {}})
        await reply.gone()
        gone.set()

    upstream.script = script
    client = await logged_in.client()
    async with client.stream("POST", "/v1/messages", json=BODY) as answer:
        await anext(answer.aiter_bytes())
    await asyncio.wait_for(gone.wait(), 0.8)
    await until(lambda: logged_in.seen(RequestServed))
    assert logged_in.seen(RequestServed)[0].status == 499
    assert (await logged_in.gateway.status()).last_error == ""


async def test_when_the_client_goes_before_the_answer_begins(
    logged_in: Any, upstream: Any, until: Any
) -> None:
    gone = asyncio.Event()

    async def script(reply: Any) -> None:
        await reply.gone()
        gone.set()

    upstream.script = script
    client = await logged_in.client()
    asking = asyncio.get_running_loop().create_task(client.post("/v1/messages", json=BODY))
    await until(lambda: upstream.requests)
    asking.cancel()
    await asyncio.wait_for(gone.wait(), 0.8)
    await until(lambda: logged_in.seen(RequestServed))


async def test_a_request_that_is_too_long(logged_in: Any, upstream: Any) -> None:
    async def endless() -> Any:
        for _ in range(33):
            yield b" " * (1 << 20)

    answer = await (await logged_in.client()).post("/v1/messages", content=endless())
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"
    assert upstream.requests == []


async def test_a_request_that_says_it_is_too_long(logged_in: Any, upstream: Any) -> None:
    """Refused before a byte of it is taken."""
    await logged_in.client()
    reader, writer = await asyncio.open_unix_connection(str(logged_in.door()))
    writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 34603008\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"request_too_large" in answer
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("HEAD", "/api/hello"), ("POST", "/v1/files"), ("POST", "/v1/messages/x")],
)
async def test_nothing_else_is_served(logged_in: Any, upstream: Any, method: str, path: str) -> None:
    answer = await (await logged_in.client()).request(method, path)
    assert answer.status_code == 404
    assert upstream.requests == []


async def test_count_tokens_passes_and_is_not_counted(logged_in: Any, upstream: Any) -> None:
    upstream.script = lambda reply: reply.whole(200, {"input_tokens": 12})
    answer = await (await logged_in.client()).post("/v1/messages/count_tokens", json=BODY)
    assert answer.json() == {"input_tokens": 12}
    assert (await logged_in.gateway.status()).usage == []


async def test_login_and_logout(hive: Any, upstream: Any, until: Any, canary: str) -> None:
    await hive.start(HIVE_UPSTREAM_URL=upstream.url)
    file = hive.paths.own("gateway") / "credential.json"
    assert (await hive.gateway.status()).mode == "rehearsal"
    with pytest.raises(BadRequest) as caught:
        await hive.gateway.login("oauth_token", canary)
    assert canary not in str(caught.value)
    with pytest.raises(BadRequest):
        await hive.gateway.login("api_key", canary + "\r\nhost: evil")
    await hive.gateway.login("api_key", canary)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await hive.gateway.status()).upstream == upstream.url
    await hive.gateway.logout()
    assert not file.exists()
    assert (await hive.gateway.status()).mode == "rehearsal"
    await until(lambda: [event.mode for event in hive.seen(GatewayChanged)] == ["api_key", "rehearsal"])
    assert canary not in hive.log()


async def test_the_key_is_in_no_argument_and_no_environment(hive: Any, canary: str) -> None:
    hive.forked = False
    await hive.start()
    await hive.gateway.login("api_key", canary)
    proc = Path(f"/proc/{hive.process.pid}")
    said = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    assert b"services.gateway" in said
    assert canary.encode() not in said
    database = hive.paths.database("gateway")
    assert not any(canary.encode() in path.read_bytes() for path in database.parent.glob("gateway.sqlite*"))


async def test_without_a_credential_and_without_rehearsal(hive: Any) -> None:
    await hive.start(HIVE_REHEARSAL="off")
    answer = await hive.ask(BODY)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert "hive-admin login" in answer.json()["error"]["message"]
    assert "hive-admin login" in (await hive.gateway.status()).last_error


async def test_a_request_that_would_be_another_protocol_is_refused(logged_in: Any, upstream: Any) -> None:
    """The parser drops the body after an upgrade; sent on with its declared length it once ended the gateway."""
    body = json.dumps(BODY).encode()
    head = "POST /v1/messages HTTP/1.1\r\nHost: g\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: "
    await logged_in.client()
    reader, writer = await asyncio.open_unix_connection(str(logged_in.door()))
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(5):
        said = await reader.read()
    writer.close()
    assert said.startswith(b"HTTP/1.1 400")
    assert b'"invalid_request_error"' in said
    assert upstream.requests == []
    assert (await logged_in.ask(BODY)).status_code == 200
    assert logged_in.process.poll() is None


async def test_a_body_is_as_long_as_its_length_says() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"method": "POST", "path": "/", "query_string": b"", "headers": [(b"content-length", b"56")]}
    exchange = Exchange("iris", scope, receive, send)
    with pytest.raises(Refused, match="0 bytes, and its content-length says 56"):
        async for _ in exchange.body(bytes_max=100, seconds_max=1.0):
            pass
