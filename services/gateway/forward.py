"""To the upstream and back, streaming both ways, with the host's credential on the request."""

from __future__ import annotations

import logging
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NoReturn

import httpx

from services.gateway import rules
from services.gateway.exchange import Exchange, Refused
from services.gateway.secret import Credential
from services.gateway.settings import Settings

log = logging.getLogger("hive.gateway")

WRITE_SECONDS_MAX = 60.0
KEEP_ALIVE_SECONDS = 30.0


class Dropped(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    """The upstream broke off in mid-answer; so must we, or a half answer would pass for a whole one."""


class Forwarder:
    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._timeout = httpx.Timeout(
            connect=settings.connect_seconds_max,
            read=settings.silence_seconds_max,
            write=WRITE_SECONDS_MAX,
            pool=settings.connect_seconds_max,
        )
        # each agent's door has its own cap on connections, so that none can use up what others need
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEP_ALIVE_SECONDS
        )
        self._client = httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # one agent's cookie is not another's
            limits=limits,
            transport=transport,
            trust_env=False,
        )
        for chatty in ("httpx", "httpcore"):  # their debug lines would hold headers
            logging.getLogger(chatty).setLevel(logging.WARNING)

    async def answer(self, exchange: Exchange, route: rules.Route, credential: Credential) -> None:
        """Raises Refused when the upstream gives no answer, Dropped when it gives half of one."""
        request = self._request(exchange, route, credential)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            self._explain(error)
        try:
            await self._pass_back(exchange, response)
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._client.aclose()

    def _request(self, exchange: Exchange, route: rules.Route, credential: Credential) -> httpx.Request:
        headers = rules.upstream_headers(exchange.headers, credential)
        if exchange.length is not None:
            headers.append(("content-length", str(exchange.length)))
        body = exchange.body(
            bytes_max=self._settings.request_bytes_max, seconds_max=self._settings.upload_seconds_max
        )
        return httpx.Request(
            "POST",
            rules.target(self._settings.upstream_url, route, exchange.query),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            content=body,
            extensions={"timeout": self._timeout.as_dict()},
        )

    async def _pass_back(self, exchange: Exchange, response: httpx.Response) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        await exchange.begin(response.status_code, rules.cage_headers(headers))
        try:
            async for chunk in response.aiter_bytes():
                await exchange.write(chunk)
        except httpx.HTTPError as error:
            raise Dropped(type(error).__name__) from None
        await exchange.end()

    def _explain(self, error: httpx.HTTPError) -> NoReturn:
        """Says what happened without the exception's own text, which may quote what was sent."""
        upstream = httpx.URL(self._settings.upstream_url).host
        log.warning(
            "no answer from the upstream", extra={"upstream": upstream, "error": type(error).__name__}
        )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            raise Refused(502, f"the gateway cannot reach {upstream}") from None
        if isinstance(error, httpx.TimeoutException):
            raise Refused(504, f"{upstream} did not answer in time") from None
        raise Refused(502, f"the connection to {upstream} broke ({type(error).__name__})") from None
