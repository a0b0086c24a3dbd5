"""What every request of a cage goes through: is it one we serve, who answers it, what is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from libhive.clock import Clock
from services.gateway import rules
from services.gateway.exchange import CLIENT_GONE, ClientGone, Exchange, Receive, Refused, Scope, Send
from services.gateway.forward import Dropped
from services.gateway.metering import Tokens

log = logging.getLogger("hive.gateway")

Answer = Callable[[Exchange, rules.Route], Awaitable[None]]
"""Answers an exchange, or raises Refused or Dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What became of one request."""

    agent: str
    route: rules.Route
    status: int
    model: str
    tokens: Tokens
    error: str
    took_ms: int


class Front:
    """The ASGI application of every door; the door says whose it is."""

    def __init__(
        self,
        answer: Answer,
        served: Callable[[Served], Awaitable[None]],
        fail: Callable[[str, BaseException], None],
        clock: Clock,
    ) -> None:
        self._answer, self._served, self._fail, self._clock = answer, served, fail, clock

    def for_agent(self, agent: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._serve(Exchange(agent, scope, receive, send))

        return app

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._handle(exchange)
        except Exception as error:  # noqa: BLE001 - a bug; as in libhive.daemon, where a handler's bug ends
            self._fail(f"a request of {exchange.agent}", error)
            await exchange.refuse(Refused(500, "the gateway failed at this request"))

    async def _handle(self, exchange: Exchange) -> None:
        if any(name == "upgrade" for name, _ in exchange.headers):
            # the parser takes what follows for another protocol's bytes: the body that was declared never comes
            await exchange.refuse(Refused(400, "the gateway speaks HTTP/1.1 only: send no upgrade header"))
            return
        route = rules.route(exchange.method, exchange.path)
        if route is None:
            await exchange.refuse(
                Refused(404, f"the gateway does not serve {exchange.method} {exchange.path:.100}")
            )
            return
        began = self._clock()
        error = await self._attempt(exchange, route)
        await self._served(
            Served(
                agent=exchange.agent,
                route=route,
                status=CLIENT_GONE if exchange.gone else exchange.status,
                model=exchange.meter.model,
                tokens=exchange.meter.tokens,
                error=error or exchange.meter.error,
                took_ms=max(0, self._clock() - began),
            )
        )

    async def _attempt(self, exchange: Exchange, route: rules.Route) -> str:
        """The answer, whatever happens on the way; returns what went wrong, in our own words."""
        try:
            await self._answer(exchange, route)
        except Refused as refused:
            await exchange.refuse(refused)
            return refused.message
        except Dropped as dropped:
            log.warning("the upstream broke off", extra={"agent": exchange.agent, "error": str(dropped)})
            return "the upstream broke off in mid-answer"  # uvicorn closes a connection whose answer was not ended
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.gone or task is None:
                raise
            task.uncancel()
            return "the client went away"
        except ClientGone:
            return "the client went away"
        finally:
            exchange.close()
        return ""
