"""What is let out. A name is judged before it is looked up, and what it means after that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from libhive import destinations
from libhive.destinations import Address, Destination
from libhive.messages.gateway import EgressReason, Verdict
from libhive.spec import ENTRIES_MAX, Egress


@dataclass(frozen=True, slots=True)
class Ruling:
    verdict: Verdict
    reason: EgressReason
    detail: str = ""
    addresses: tuple[Address, ...] = ()
    """Those that may be connected to."""

    @property
    def allowed(self) -> bool:
        return self.verdict == "allowed"


OFF: Final = Ruling("refused", "off", "this agent's configuration lets nothing out: [egress] mode is none")
UNKNOWN: Final = Ruling("refused", "off", "what this agent may reach is not known yet; try again in a moment")


def by_name(egress: Egress | None, asked: Destination) -> Ruling:
    """Whether it is worth looking up. `egress` None: nobody has said what this agent may reach."""
    if egress is None:
        return UNKNOWN
    if egress.mode == "none":
        return OFF
    if any(destinations.entry(text).matches(asked) for text in egress.allow):
        return Ruling("allowed", "listed")
    if egress.mode == "learn":
        return Ruling("allowed", "learn")
    return Ruling(
        "refused", "not-listed", f"{asked} is not in the list of [egress] allow; the manager can propose it"
    )


def by_address(
    egress: Egress, asked: Destination, addresses: Sequence[Address], own: Collection[Address]
) -> Ruling:
    """`own`: which of the addresses are this host's."""
    first = by_name(egress, asked)
    if not first.allowed:
        return first
    if not addresses:
        return Ruling("failed", "no-address", f"{asked.host} has no address")
    good = tuple(each for each in addresses if _may(egress, each, asked.port, own))
    if good:
        return Ruling("allowed", first.reason, "", good)
    address = addresses[0]
    kind, listed = destinations.special(address) or "this host's own", destinations.of(address, asked.port)
    detail = (
        f"{asked.host} is {address} ({kind}); it is let out only when [egress] allow lists {listed} as well"
    )
    return Ruling("refused", "special-address", detail)


def still(egress: Egress | None, asked: Destination, address: Address, own: bool) -> bool:
    """Whether what was let out would be let out now."""
    if egress is None or not by_name(egress, asked).allowed:
        return False
    return _may(egress, address, asked.port, {address} if own else ())


def used(asked: Destination, address: Address, own: bool) -> set[str]:
    """The entries that a list needs for this connection."""
    special = own or destinations.special(address)
    return {str(asked), str(destinations.of(address, asked.port))} if special else {str(asked)}


def room_for(learned: Collection[str], more: Collection[str]) -> bool:
    return len({*learned, *more}) <= ENTRIES_MAX


def _may(egress: Egress, address: Address, port: int, own: Collection[Address]) -> bool:
    if not destinations.special(address) and address not in own:
        return True
    return str(destinations.of(address, port)) in egress.allow
