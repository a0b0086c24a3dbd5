"""What a command inside a cage can reach, by `hive-admin exec` in the cage of a real agent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from libhive.messages.lifecycle import Executed
from libhive.names import AgentName
from libhive.spec import AgentSpec
from tests.system.conftest import TOGETHER, Story

pytestmark = TOGETHER

CANARY = "sk-ant-api03-canary-5f1c9e7d4b2a8c6e0f3d"

PROBE = """
import os, pathlib, socket
def attempt(what, do):
    try: do(); print(what, "REACHED")
    except OSError as error: print(what, "refused", error.errno)
attempt("route", lambda: socket.create_connection(("192.0.2.1", 80), 3))
attempt("host loopback", lambda: socket.create_connection(("127.0.0.1", DASHBOARD), 3))
attempt("dns", lambda: socket.getaddrinfo("example.org", 80))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.53", 53)))
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
for place in ("/", "/etc", "/usr", "/run", "/run/hive", "/opt", "/opt/hive", "/home", "/var", "/proc/sys/kernel"):
    attempt("write " + place, lambda: open(os.path.join(place, "x"), "w"))
attempt("write state", lambda: open("/state/x", "w"))
attempt("mount", lambda: os.stat("/proc/1/root/etc/shadow"))

print("interfaces", sorted(os.listdir("/sys/class/net")) if os.path.exists("/sys/class/net") else socket.if_nameindex())
print("doors", sorted(os.listdir("/run/hive")))
print("uid", os.getuid())
"""

SEARCH = """
import os
needle = bytes.fromhex(NEEDLE)
found, looked = [], 0
for top in ("/proc", "/state", "/run", "/tmp", "/etc", "/opt", "/home", "/var", "/dev/shm"):
    for directory, _, names in os.walk(top):
        if directory.startswith(("/opt/hive/venv", "/proc/sys")): continue
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.isfile(path) or name in ("claude", "kmsg", "kcore", "mem") or name.startswith("clear_refs"): continue
            try: data = open(path, "rb").read(4_000_000)
            except OSError: continue
            looked += 1
            if needle in data: found.append(path)
print("looked", looked > 50, "found", found)
"""


async def python(story: Story, name: str, program: str) -> str:
    done: Executed = await story.hive.lifecycle.exec(name, ["python3", "-c", program], 60)
    assert done.exit_code == 0, done.output
    return done.output


async def awake(story: Story, name: str) -> None:
    if not await story.hive.lifecycle.agent(name):
        await story.hive.lifecycle.apply(name, 0, AgentSpec(prompt="You draw."))
    await story.hive.wait_for_agent(name)


async def test_from_inside_a_cage(story: Story) -> None:
    await awake(story, "iris")
    port = story.hive.environ["HIVE_DASHBOARD_PORT"]
    said = (await python(story, "iris", PROBE.replace("DASHBOARD", port))).splitlines()
    reached = [line for line in said if line.endswith("REACHED")]
    assert reached == ["write state REACHED"], said
    assert len([line for line in said if " refused" in line]) == 17, said
    assert "doors ['broker.sock', 'gateway.sock', 'proxy.sock']" in said
    assert "interfaces [(1, 'lo')]" in said, said


async def test_there_is_no_other_agent_in_a_cage(story: Story) -> None:
    for name in ("iris", "bob"):
        await awake(story, name)
    await story.hive.lifecycle.exec("bob", ["sh", "-c", "echo of-bob > /state/of-bob"])
    everything = await story.hive.lifecycle.exec(
        "iris", ["sh", "-c", "find / -name of-bob -o -name bob 2>/dev/null; ls /state"]
    )
    assert "bob" not in everything.output, everything.output
    processes = await story.hive.lifecycle.exec(
        "iris", ["sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep HIVE_AGENT= | sort -u"]
    )
    assert processes.output.split() == ["HIVE_AGENT=iris"]


async def test_the_credential_is_nowhere_in_a_cage_nor_where_others_could_see_it(story: Story) -> None:
    hive = story.hive
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "hive-admin"),
        "login",
        "--stdin",
        env=hive.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate(CANARY.encode() + b"\n")
    assert process.returncode == 0, err
    assert CANARY.encode() not in out + err
    assert (await hive.gateway.status()).mode == "api_key"
    assert "found []" in await python(story, "hm1nd", SEARCH.replace("NEEDLE", repr(CANARY.encode().hex())))
    assert CANARY not in hive.logs()
    holders = [
        path for path in hive.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    assert [path.stat().st_mode & 0o777 for path in holders] == [0o600]
    for pid in [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and path.name != str(os.getpid())
    ]:
        for what in ("cmdline", "environ"):
            try:
                assert CANARY.encode() not in Path(f"/proc/{pid}/{what}").read_bytes()
            except OSError:
                continue
    await story.admin("logout")
    assert not [path for path in holders if path.exists()]


async def test_the_search_finds_what_is_there(story: Story) -> None:
    """A check that cannot fail shows nothing: the same search finds a word that was planted."""
    await story.hive.lifecycle.exec("hm1nd", ["sh", "-c", "echo planted-word > /state/planted"])
    assert "/state/planted" in await python(
        story, "hm1nd", SEARCH.replace("NEEDLE", repr(b"planted-word".hex()))
    )


async def test_an_agent_has_a_user_of_its_own_when_the_hive_is_roots(story: Story) -> None:
    agent = await story.hive.lifecycle.agent(AgentName("hm1nd"))
    assert agent is not None
    owner = story.hive.paths.agent_state(AgentName("hm1nd")).stat().st_uid
    assert owner == (agent.uid if os.geteuid() == 0 else os.geteuid())
    assert os.geteuid() != 0 or agent.uid >= 524_288
