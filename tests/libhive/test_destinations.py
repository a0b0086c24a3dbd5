from __future__ import annotations

import ipaddress
import random

import pytest

from libhive import destinations
from libhive.destinations import Destination


@pytest.mark.parametrize(
    "text",
    [
        "github.com:443",
        "localhost:8080",
        "a_b.example.org:1",
        "db1:5432",
        "*.example.org:443",
        "10.0.0.5:5432",
        "[2001:db8::1]:443",
        "xn--mnchen-3ya.de:65535",
    ],
)
def test_an_entry_is_what_it_says(text: str) -> None:
    assert str(destinations.entry(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("github.com", "not host:port"),
        ("github.com:", "not host:port"),
        ("github.com:0", "not host:port"),
        ("github.com:0443", "not host:port"),
        ("github.com:65536", "not host:port"),
        ("github.com:*", "not host:port"),
        ("github.com:４43", "not host:port"),
        (":443", "not the name"),
        ("GitHub.com:443", "is written 'github.com:443'"),
        ("github.com.:443", "is written"),
        ("https://github.com:443", "brackets"),
        ("github.com/x:443", "not the name"),
        ("user@github.com:443", "not the name"),
        ("git hub.com:443", "not the name"),
        ("git\nhub.com:443", "not the name"),
        ("github..com:443", "not the name"),
        ("-x.com:443", "not the name"),
        (f"{'a' * 64}.com:443", "not the name"),
        ("münchen.de:443", "xn--"),
        ("\u212aiwi.com:443", "xn--"),  # the sign for Kelvin, whose small letter is a plain k
        ("*:443", "not the name"),
        ("*.org:443", "too wide"),
        ("*.*.example.org:443", "not the name"),
        ("a.*.example.org:443", "not the name"),
        ("*.10.0.0.5:443", "too wide"),
        ("127.1:80", "four numbers"),
        ("0x7f.0.0.1:80", "is not the name|four numbers"),
        ("2130706433:80", "four numbers"),
        ("0177.0.0.1:80", "four numbers"),
        ("1.2.3.4.5:80", "four numbers"),
        ("x.1:80", "four numbers"),
        ("::1:443", "brackets"),
        ("[::1%lo]:443", "zone"),
        ("[0:0:0:0:0:0:0:1]:443", "is written"),
        ("[::ffff:10.0.0.1]:443", "is written '10.0.0.1:443'"),
        ("[10.0.0.1]:443", "IPv6"),
    ],
)
def test_what_is_no_entry_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        destinations.entry(text)


@pytest.mark.parametrize(
    ("entry", "asked", "matches"),
    [
        ("a.example.org:443", "A.Example.ORG.:443", True),
        ("a.example.org:443", "a.example.org:80", False),
        ("*.example.org:443", "a.example.org:443", True),
        ("*.example.org:443", "example.org:443", False),
        ("*.example.org:443", "a.b.example.org:443", False),
        ("*.example.org:443", "aexample.org:443", False),
        ("*.example.org:443", "a.example.org:80", False),
        ("*.example.org:443", "a.example.org.evil.org:443", False),
        ("10.0.0.1:80", "[::ffff:10.0.0.1]:80", True),
        ("[2001:db8::1]:80", "[2001:DB8:0::1]:80", True),
        ("10.0.0.1:80", "10.0.0.10:80", False),
    ],
)
def test_an_entry_matches(entry: str, asked: str, matches: bool) -> None:
    assert destinations.entry(entry).matches(destinations.target(asked)) is matches


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),
        ("10.1.2.3", "private"),
        ("100.100.100.200", "private"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.169.254", "link-local"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "reserved"),
        ("192.168.0.1", "private"),
        ("198.18.0.1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b:1::1", "reserved"),
        ("2001::1", "reserved"),
        ("2002:7f00:1::", "reserved"),
        ("2001:db8::1", "documentation"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("8.8.8.8", ""),
        ("172.32.0.1", ""),
        ("::ffff:8.8.8.8", ""),
        ("64:ff9b::8.8.8.8", ""),
        ("2606:4700::1111", ""),
    ],
)
def test_special_addresses(address: str, kind: str) -> None:
    assert destinations.special(ipaddress.ip_address(address)) == kind


def test_what_python_knows_to_be_private_is_special() -> None:
    """A second opinion on a few thousand addresses: ours may call more special than Python does, never less."""
    draw = random.Random(4)
    for _ in range(4_000):
        four = ipaddress.IPv4Address(draw.getrandbits(32))
        six = ipaddress.IPv6Address(draw.getrandbits(128) >> draw.choice((0, 0, 8, 64, 120)))
        for address in (four, six):
            if not address.is_global or address.is_multicast:
                assert destinations.special(address) or address in ipaddress.ip_network("64:ff9b::/96")


def test_nothing_that_is_no_destination_gets_through() -> None:
    """Whatever is taken is of the one form, and an address is one to everybody."""
    draw, taken = random.Random(7), 0
    for _ in range(30_000):
        text = "".join(draw.choices("a1.-_*:[]x0%@/\\ \0é\t", k=draw.randrange(1, 14))) + draw.choice(
            ("", ":80")
        )
        try:
            found = destinations.target(text)
        except ValueError:
            continue
        taken += 1
        assert destinations.target(str(found)) == found
        assert not set(found.host) & set("*[]%@/\\ \0\té")
        assert found.address is None or str(found.address) == found.host
    assert taken > 100


def test_a_name_that_ends_in_a_digit_is_a_name() -> None:
    assert Destination("db1", 80).address is None
