"""Where an agent may connect to: `host:port` as a configuration writes it, and which addresses are not public."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ENTRY_CHARACTERS_MAX = 262
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A host, which is a name, `*.` and a name, or an address without brackets; and a port."""

    host: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        return self.host.startswith("*.")

    @property
    def address(self) -> Address | None:
        is_address = ":" in self.host or self.host.rpartition(".")[2][:1].isdigit()
        return ipaddress.ip_address(self.host) if is_address else None

    def matches(self, other: Destination) -> bool:
        """Whether this entry lets `other` through. A wildcard stands for exactly one label."""
        if not self.is_wildcard:
            return self == other
        label, dot, rest = other.host.partition(".")
        return self.port == other.port and bool(label and dot) and rest == self.host[2:]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def entry(text: str) -> Destination:
    """An entry of a list, in the one form in which it may be written. Raises ValueError that says what is wrong."""
    if text.startswith("*."):
        under = _parsed(text[2:])
        if under.address is not None or "." not in under.host:
            raise ValueError(
                f"{text!r:.120} is too wide: after `*.` comes a name of two labels or more, as in *.example.org:443"
            )
        found = Destination(f"*.{under.host}", under.port)
    else:
        found = _parsed(text)
    if str(found) != text:
        raise ValueError(f"{text!r:.120} is written {str(found)!r}")
    return found


def target(text: str) -> Destination:
    """What a program asks for; case, a final dot and the spelling of an address do not matter. Raises ValueError."""
    return _parsed(text)


def of(address: Address, port: int) -> Destination:
    return Destination(str(address), port)


def _parsed(text: str) -> Destination:
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.match(port) or int(port) > 65_535:
        raise ValueError(f"{text!r:.120} is not host:port, with a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return Destination(_address6(host[1:-1]), int(port))
    if ":" in host:
        raise ValueError(f"{text!r:.120}: an IPv6 address stands in brackets, as in [2001:db8::1]:443")
    if not host.isascii():  # before `lower`, which makes a plain k of the sign for Kelvin
        raise ValueError(f"{text!r:.120}: a name with other letters than a-z is written in its `xn--` form")
    name = host.lower().removesuffix(".")
    if name.rpartition(".")[2][:1].isdigit():
        return Destination(_address4(name), int(port))
    if not _NAME.match(name):
        raise ValueError(f"{text!r:.120}: {host!r:.120} is not the name of a host")
    return Destination(name, int(port))


def _address4(text: str) -> str:
    """Only the form with four decimal numbers: `127.1`, `0x7f.0.0.1` and `2130706433` are addresses to others as well."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text!r:.120} is neither a name nor an IPv4 address of four numbers") from None


def _address6(text: str) -> str:
    if "%" in text:
        raise ValueError(f"{text!r:.120}: an address has no zone here")
    try:
        return str(plain(ipaddress.IPv6Address(text)))
    except ValueError:
        raise ValueError(f"{text!r:.120} is not an IPv6 address") from None


def plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one is the IPv4 address: the kernel connects to that."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


# ---- what is not the public internet

_SPECIAL_4: Final = [
    (ipaddress.IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),  # Linux connects 0.0.0.0 to this host
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "private"),  # carriers' NAT, and the metadata of one cloud
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata"),  # public by its number, and a cloud's own on each of its hosts
        ("169.254.0.0/16", "link-local"),  # the metadata of most clouds
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),  # the broadcast address too
    )
]
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out for the internet; but for what of it is special again:"""
_SPECIAL_6: Final = [
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("2001::/23", "reserved"),  # Teredo is among these: its addresses hide an IPv4 one
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "reserved"),  # 6to4: as Teredo
        ("3fff::/20", "documentation"),
    )
]
_NAMED_6: Final = [
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
]
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def special(address: Address) -> str:
    """Of which kind an address is that is not of the public internet (`private`, `loopback` ...); empty for one that is."""
    address = plain(address)
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _SPECIAL_4 if address in network), "")
    if address in _NAT64:  # what a resolver gives for an IPv4 host where there is only IPv6
        return special(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    kinds = _SPECIAL_6 if address in _PUBLIC_6 else _NAMED_6
    otherwise = "" if address in _PUBLIC_6 else "reserved"
    return next((kind for network, kind in kinds if address in network), otherwise)
