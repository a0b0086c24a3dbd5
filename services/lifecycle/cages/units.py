"""systemd, as far as lifecycle may ask it: the units `hive-cage@<name>.service` and `hive-build@<key>.service`, by D-Bus,
under the polkit rule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from libhive.names import AgentName
from libhive.problems import Conflict, Unavailable

SYSTEMD, MANAGER = "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"
JOBS = f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"
CALL_SECONDS_MAX = 20.0
NOT_THERE = (
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.NothingToClean",
    "org.freedesktop.systemd1.UnitNotLoaded",
)
OURS = ("hive-build@", "hive-cage@")
CLEANING = "maintenance"
POLL_SECONDS = 0.05
THERE = ["activating", "active", "deactivating", "failed", "reloading"]
REFUSED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
)


def unit_of(name: AgentName) -> str:
    return f"hive-cage@{name}.service"


def name_in(unit: str) -> str:
    """Whatever stands there in the place of an agent's name."""
    return unit.removeprefix("hive-cage@").removesuffix(".service")


class Units:
    """One connection, made when it is first needed, and again when the bus was restarted."""

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._connecting = asyncio.Lock()
        self._over: dict[str, asyncio.Future[str]] = {}
        """How each job about one of them ended, by its path; systemd may say so before we know the path."""
        self._waiting = 0
        self._held: set[str] = set()

    async def start(self, unit: str, seconds: float) -> str:
        """What became of it: `done`, or one of systemd's words for why not."""
        return await self._job("StartUnit", unit, seconds)

    async def stop(self, unit: str, seconds: float) -> None:
        """Until systemd has ended it, and all that was below it. Raises TimeoutError."""
        with _unless_gone():
            await self._job("StopUnit", unit, seconds)

    async def kill(self, unit: str) -> None:
        """SIGKILL to every process in its cgroup."""
        with _unless_gone():
            await self._call("KillUnit", "ssi", unit, "all", 9)

    async def forget(self, unit: str) -> None:
        """That it failed: systemd keeps nothing of it then."""
        with _unless_gone():
            await self._call("ResetFailedUnit", "s", unit)

    async def clean(self, unit: str, seconds: float) -> None:
        """Removes the state directory of one that does not run, whoever its files belong to. Raises TimeoutError."""
        with _unless_gone():
            await self._call("CleanUnit", "sas", unit, ["state"])
        async with asyncio.timeout(seconds):
            while True:
                if (await self.properties(unit))["ActiveState"] != CLEANING:
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def hold(self, unit: str) -> None:
        """So that systemd remembers how it ended. It lets go by itself when we are gone."""
        if unit not in self._held:
            await self._call("RefUnit", "s", unit)
            self._held.add(unit)

    async def let_go(self, unit: str) -> None:
        if unit in self._held:
            self._held.discard(unit)
            with contextlib.suppress(Conflict):  # systemd itself has begun anew since
                await self._call("UnrefUnit", "s", unit)

    async def limit(self, unit: str, limits: Mapping[str, int]) -> None:
        """For this boot; over what the unit's file says."""
        properties = [[name, Variant("t", value)] for name, value in limits.items()]
        await self._call("SetUnitProperties", "sba(sv)", unit, True, properties)

    async def properties(self, unit: str) -> dict[str, Any]:
        """All that systemd knows of the unit and its service."""
        (path,) = await self._call("LoadUnit", "s", unit)
        known: dict[str, Any] = {}
        for kind in ("Unit", "Service"):
            (found,) = await self._call(
                "GetAll", "s", f"{SYSTEMD}.{kind}", path=path, interface="org.freedesktop.DBus.Properties"
            )
            known |= {name: value.value for name, value in found.items()}
        return known

    async def there(self) -> list[str]:
        """Every cage's unit that systemd has, but for those that have ended well."""
        (found,) = await self._call("ListUnitsByPatterns", "asas", THERE, [unit_of(AgentName("*"))])
        return [str(name) for name, *_ in found]

    def close(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    async def _job(self, verb: str, unit: str, seconds: float) -> str:
        self._waiting += 1
        try:
            (path,) = await self._call(verb, "ss", unit, "replace")
            async with asyncio.timeout(seconds):
                return await self._result(path)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._over.clear()

    def _result(self, path: str) -> asyncio.Future[str]:
        if path not in self._over:
            self._over[path] = asyncio.get_running_loop().create_future()
        return self._over[path]

    def _on_message(self, message: Message) -> None:
        if message.message_type == MessageType.SIGNAL and message.member == "JobRemoved":
            _, path, unit, result = message.body
            if self._waiting and unit.startswith(OURS):
                over = self._result(path)
                if not over.done():
                    over.set_result(result)

    async def _call(
        self, member: str, signature: str, *body: Any, path: str = MANAGER_PATH, interface: str = MANAGER
    ) -> list[Any]:
        bus = await self._connected()
        message = Message(SYSTEMD, path, interface, member, signature=signature, body=list(body))
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                reply = await bus.call(message)
        except (OSError, EOFError, TimeoutError) as error:
            raise Unavailable(f"systemd does not answer ({error or type(error).__name__})") from error
        assert reply is not None
        if reply.message_type == MessageType.ERROR:
            raise _problem(reply)
        return list(reply.body)

    async def _connected(self) -> MessageBus:
        async with self._connecting:
            if self._bus is None or not self._bus.connected:
                self._over.clear()
                self._held.clear()
                self._bus = await self._connect()
        return self._bus

    async def _connect(self) -> MessageBus:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            await bus.connect()
            bus.add_message_handler(self._on_message)
            for destination, member, arguments in (
                ("org.freedesktop.DBus", "AddMatch", [JOBS]),
                (SYSTEMD, "Subscribe", []),
            ):
                where = MANAGER_PATH if destination == SYSTEMD else "/org/freedesktop/DBus"
                interface = MANAGER if destination == SYSTEMD else destination
                await bus.call(
                    Message(
                        destination,
                        where,
                        interface,
                        member,
                        signature="s" if arguments else "",
                        body=arguments,
                    )
                )
        except (OSError, EOFError, DBusError) as error:
            raise Unavailable(
                f"the system's D-Bus does not answer ({error})", "systemctl status dbus"
            ) from error
        return bus


class _Gone(Conflict):
    """There is no such unit, or nothing of it is loaded."""


def _problem(reply: Message) -> Conflict:
    text = str(reply.body[0]) if reply.body else str(reply.error_name)
    if reply.error_name in NOT_THERE:
        return _Gone(f"systemd: {text:.300}", "are the hive's units installed? make install")
    if reply.error_name in REFUSED:
        return Conflict(
            "systemd does not let this user start and stop cages and builds",
            "what `make install` wrote to /etc/polkit-1 and /etc/dbus-1 says who may: hive-admin doctor",
        )
    return Conflict(f"systemd refused: {text:.300}")


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    with contextlib.suppress(_Gone):
        yield
