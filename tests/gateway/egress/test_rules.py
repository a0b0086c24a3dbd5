from __future__ import annotations

from ipaddress import ip_address

import pytest

from libhive import destinations
from libhive.destinations import Address
from libhive.spec import Egress
from services.gateway.egress import rules

PUBLIC, OTHER = ip_address("93.184.216.34"), ip_address("2606:4700::1")
LOOPBACK, METADATA = ip_address("127.0.0.1"), ip_address("169.254.169.254")
LISTED = Egress(
    mode="allow", allow=["a.org:443", "*.b.org:443", "db.lan:5432", "10.0.0.5:5432", "127.0.0.1:80"]
)


def name(egress: Egress | None, asked: str) -> str:
    return rules.by_name(egress, destinations.target(asked)).reason


def address(
    egress: Egress, asked: str, *found: Address, own: tuple[Address, ...] = ()
) -> tuple[str, list[str]]:
    ruling = rules.by_address(egress, destinations.target(asked), found, own)
    return ruling.reason, [str(each) for each in ruling.addresses]


def test_a_name_is_judged_before_it_is_looked_up() -> None:
    assert name(None, "a.org:443") == "off"
    assert name(Egress(allow=["a.org:443"]), "a.org:443") == "off"
    assert name(LISTED, "a.org:443") == "listed"
    assert name(LISTED, "a.org:80") == "not-listed"
    assert name(LISTED, "x.b.org:443") == "listed"
    assert name(LISTED, "b.org:443") == "not-listed"
    assert name(LISTED, "169.254.169.254:80") == "not-listed"
    assert name(Egress(mode="learn"), "a.org:443") == "learn"


def test_a_listed_name_opens_no_special_address() -> None:
    """Whoever owns the name decides what it means: only a listed address opens a special one."""
    assert address(LISTED, "a.org:443", PUBLIC) == ("listed", [str(PUBLIC)])
    for special in (LOOPBACK, METADATA, ip_address("::1"), ip_address("10.0.0.5")):
        assert address(LISTED, "a.org:443", special) == ("special-address", [])
    assert address(LISTED, "a.org:443", LOOPBACK, PUBLIC, METADATA, OTHER) == (
        "listed",
        [str(PUBLIC), str(OTHER)],
    )
    assert address(LISTED, "db.lan:5432", ip_address("10.0.0.5")) == ("listed", ["10.0.0.5"])
    assert address(LISTED, "db.lan:5432", ip_address("10.0.0.6")) == ("special-address", [])
    assert address(LISTED, "127.0.0.1:80", LOOPBACK) == ("listed", ["127.0.0.1"])


def test_the_hosts_own_public_address_is_special() -> None:
    assert address(LISTED, "a.org:443", PUBLIC, own=(PUBLIC,)) == ("special-address", [])
    opened = Egress(mode="allow", allow=["a.org:443", f"{PUBLIC}:443"])
    assert address(opened, "a.org:443", PUBLIC, own=(PUBLIC,)) == ("listed", [str(PUBLIC)])


def test_learning_lets_out_what_is_public_and_what_is_listed() -> None:
    learning = Egress(mode="learn", allow=["127.0.0.1:80"])
    assert address(learning, "x.org:25", PUBLIC) == ("learn", [str(PUBLIC)])
    assert address(learning, "x.org:25", LOOPBACK) == ("special-address", [])
    assert address(learning, "x.org:80", LOOPBACK) == ("learn", ["127.0.0.1"])


def test_a_refusal_says_what_to_list() -> None:
    ruling = rules.by_address(LISTED, destinations.target("a.org:443"), [LOOPBACK], ())
    assert "127.0.0.1 (loopback)" in ruling.detail
    assert "lists 127.0.0.1:443 as well" in ruling.detail
    assert rules.by_address(LISTED, destinations.target("a.org:443"), [], ()).reason == "no-address"


@pytest.mark.parametrize(
    ("egress", "holds"),
    [
        (LISTED, True),
        (Egress(mode="learn"), True),
        (Egress(mode="none", allow=["a.org:443"]), False),
        (Egress(mode="allow"), False),
        (None, False),
    ],
)
def test_what_is_open_is_judged_anew(egress: Egress | None, holds: bool) -> None:
    assert rules.still(egress, destinations.target("a.org:443"), PUBLIC, False) is holds


def test_what_was_used_is_what_a_list_needs() -> None:
    asked = destinations.target("db.lan:5432")
    assert rules.used(asked, PUBLIC, False) == {"db.lan:5432"}
    for special, own in ((ip_address("10.0.0.5"), False), (PUBLIC, True)):
        needed = sorted(rules.used(asked, special, own))
        ruling = rules.by_address(
            Egress(mode="allow", allow=needed), asked, [special], [special] if own else []
        )
        assert ruling.allowed
        assert len(needed) == 2
