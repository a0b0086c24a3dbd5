from __future__ import annotations

import logging

from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.link import Link
from libhive.messages.base import Done
from libhive.messages.gateway import (
    EgressReport,
    EgressStatus,
    ForgetAgent,
    GatewayChanged,
    GatewayMode,
    GatewayReport,
    GatewayStatus,
    Login,
    Logout,
    RequestServed,
)
from libhive.names import agent_name
from libhive.paths import Paths
from libhive.problems import NoSpace, Unavailable
from libhive.spec import Egress
from services.gateway import rules, secret
from services.gateway.credential import Keeper
from services.gateway.doors import HttpDoors
from services.gateway.egress.book import Book
from services.gateway.egress.doors import Proxies
from services.gateway.egress.policies import Policies
from services.gateway.exchange import Exchange, Refused
from services.gateway.forward import Forwarder
from services.gateway.front import Front, Served
from services.gateway.rehearsal import api as rehearsal
from services.gateway.secret import Credential
from services.gateway.settings import Settings
from services.gateway.store import Store

log = logging.getLogger("hive.gateway")

NO_CREDENTIAL = "this hive has no model credential; log in on the host with: hive-admin login"


class GatewayService:
    name = "gateway"

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        keeper: Keeper,
        store: Store,
        link: Link,
        clock: Clock = now_ms,
    ) -> None:
        self.paths, self.settings, self.keeper, self.store = paths, settings, keeper, store
        self.link, self.clock = link, clock
        self.last_error = ""
        self.policies = Policies(store.egress, clock)
        self.book = Book(store.egress, settings, clock)

    def bus_handlers(self) -> Handlers:
        return {
            ForgetAgent: self.on_forget_agent,
            EgressStatus: self.on_egress,
            GatewayStatus: self.on_status,
            Login: self.on_login,
            Logout: self.on_logout,
        }

    def door_handlers(self) -> Handlers:
        return {}

    async def start(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.forwarder = Forwarder(self.settings)
        front = Front(self._answer, self._served, daemon.fail, self.clock)
        self.book.publish = daemon.publish
        await self.book.begin()
        proxies = Proxies(self.paths, self.settings, self.policies, self.book, daemon.fail)
        self.doors = HttpDoors(
            self.paths,
            self.store,
            front.for_agent,
            proxies,
            connections_per_agent_max=self.settings.connections_per_agent_max,
        )
        await self.doors.reopen()
        daemon.spawn(self.doors.follow(self.link), "doors")
        daemon.spawn(self.policies.follow(self.link), "ways out")
        daemon.spawn(self.book.run(), "book of the ways out")
        log.info("answering", extra={"mode": self.mode})

    async def stop(self) -> None:
        await self.doors.close_all()
        await self.book.close()
        await self.forwarder.close()
        await self.link.close()
        self.store.close()

    @property
    def mode(self) -> GatewayMode:
        return self.keeper.credential.kind if self.keeper.credential else "rehearsal"

    def on_status(self, call: Call, m: GatewayStatus) -> GatewayReport:
        rehearsing = self.keeper.credential is None
        return GatewayReport(
            mode=self.mode,
            upstream="" if rehearsing else self.settings.upstream_url,
            last_error=self.last_error
            or ("" if not rehearsing or self.settings.rehearsal else NO_CREDENTIAL),
            usage=self.store.usage(rehearsal=rehearsing),
        )

    async def on_forget_agent(self, call: Call, m: ForgetAgent) -> Done:
        agent = agent_name(m.agent)
        if self.doors.is_open(agent):  # closed a moment after its mailbox
            raise Unavailable(f"the gateway's door of {agent} is open", "destroy the agent first")
        await self.book.write()  # what was decided last, which would come after
        await self.store.forget(agent)
        self.policies.forget(agent)
        return Done()

    def on_egress(self, call: Call, m: EgressStatus) -> EgressReport:
        known = self.policies.of(m.agent)
        egress = known or Egress()
        return EgressReport(
            agent=m.agent,
            known=known is not None,
            mode=egress.mode,
            allow=egress.allow,
            open=self.book.open_count(m.agent),
            learned=self.policies.learned(m.agent),
            decisions=self.book.newest(m.agent, m.limit),
        )

    async def on_login(self, call: Call, m: Login) -> Done:
        credential = Credential(m.kind, m.secret)
        secret.check(credential)
        if self.store.answered(call.id) is None:
            self.keeper.keep(credential)
            await self._changed(call, "logged in")
        return Done()

    async def on_logout(self, call: Call, m: Logout) -> Done:
        if self.store.answered(call.id) is None:
            self.keeper.forget()
            await self._changed(call, "logged out")
        return Done()

    async def _changed(self, call: Call, what: str) -> None:
        self.last_error = ""
        await self.store.keep_answer(call.id, self.clock())
        log.info(what, extra={"mode": self.mode, "by": call.caller})
        self.daemon.publish(GatewayChanged(mode=self.mode))

    async def _answer(self, exchange: Exchange, route: rules.Route) -> None:
        if credential := self.keeper.credential:
            await self.forwarder.answer(exchange, route, credential)
        elif self.settings.rehearsal:
            await rehearsal.answer(exchange, route, self.settings)
        else:
            # a login later is a new try; the CLI's own tries until then would only be noise
            raise Refused(401, NO_CREDENTIAL, [("x-should-retry", "false")])

    async def _served(self, served: Served) -> None:
        if served.route != "messages":
            return
        self._note(served)  # first: what the operator has to know does not wait for the disk
        await self._count(served)
        self.daemon.publish(
            RequestServed(
                agent=served.agent,
                status=served.status,
                model=served.model,
                input_tokens=served.tokens.given,
                output_tokens=served.tokens.output,
                took_ms=served.took_ms,
            )
        )

    async def _count(self, served: Served) -> None:
        try:
            await self.store.count(
                served.agent,
                served.tokens,
                rehearsal=self.keeper.credential is None,
                error=bool(served.error),
                now_ms=self.clock(),
            )
        except NoSpace:  # the answer has gone out; agents work on while the disk is full
            log.warning("the disk is full: a request was not counted", extra={"agent": served.agent})

    def _note(self, served: Served) -> None:
        credential = self.keeper.credential
        said = credential.hide_in(served.error) if credential else served.error
        status = served.status if served.status >= 400 or not said else 502
        error = rules.last_error(status, said, self.last_error)
        if error != self.last_error:
            self.last_error = error
            self.daemon.publish(GatewayChanged(mode=self.mode, last_error=error))
