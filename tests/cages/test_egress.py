"""The way out of a real cage: the real harness in bubblewrap, a real gateway, and the programs that agents use, against
hosts on the host's loopback that the configuration lists. Nothing else is reached."""

from __future__ import annotations

import asyncio
import functools
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from libhive.clients.gateway import Gateway
from libhive.link import Link
from libhive.messages.broker import Mailbox, Mailboxes, MailboxList
from libhive.messages.lifecycle import Agent, AgentChanged, AgentList, Agents
from libhive.names import OPERATOR, agent_name
from libhive.paths import Paths
from libhive.spec import AgentSpec, Egress
from libhive.testing.peer import Peer
from services.lifecycle.cages import Running
from services.lifecycle.cages.plan import DEFAULT_PROGRAM
from services.lifecycle.settings import Settings
from tests.cages.conftest import Hutch

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.2"
"""Not 127.0.0.1, which is the cage's own loopback and is in NO_PROXY."""
IRIS = agent_name("iris")
PYTHON = "/opt/hive/venv/bin/python"


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@dataclass
class Site:
    """A web site on the host's loopback, over TLS and without: a page, a git repository, an index of packages."""

    root: Path
    ca: Path
    https: int = 0
    http: int = 0

    def serve(self) -> list[http.server.ThreadingHTTPServer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, self.ca.with_suffix(".key"))
        handler = functools.partial(Files, directory=str(self.root))
        servers = [http.server.ThreadingHTTPServer((ADDRESS, 0), handler) for _ in range(2)]
        servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True)
        self.https, self.http = (server.server_address[1] for server in servers)
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return servers


def make(place: Path) -> Site:
    root, ca = place / "site", place / "ca.pem"
    (root / "simple" / "tiny").mkdir(parents=True)
    (root / "hello.txt").write_text("hello from the host\n")
    (root / "simple" / "tiny" / "index.html").write_text('<a href="tiny-1.0-py3-none-any.whl">tiny</a>')
    with zipfile.ZipFile(root / "simple" / "tiny" / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "WORD = 'tiny'\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        str(ca.with_suffix(".key")),
        "-out",
        str(ca),
    ]
    names = "subjectAltName=DNS:site.example,DNS:other.example"
    run("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=site", "-addext", names, *key)
    work, bare = place / "work", root / "repo.git"
    run("git", "init", "-q", "-b", "main", str(work))
    (work / "README").write_text("cloned\n")
    run("git", "-C", str(work), "add", "README")
    run("git", "-C", str(work), "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "first")
    run("git", "clone", "-q", "--bare", str(work), str(bare))
    run("git", "-C", str(bare), "update-server-info")  # for a server that knows nothing of git
    return Site(root, ca)


def run(*argv: str) -> None:
    subprocess.run(
        argv,
        check=True,
        capture_output=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"},
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = make(tmp_path)
    servers = one.serve()
    yield one
    for server in servers:
        server.shutdown()
        server.server_close()


class Scene:
    """A cage with the real harness, and a real gateway between peers that the test plays."""

    def __init__(self, hutch: Hutch, site: Site) -> None:
        self.hutch, self.site, self.paths = hutch, site, hutch.paths
        self.uid = hutch.settings.uid_of(1)
        self.broker = Peer(self.paths, "broker", [Mailboxes])
        self.broker.answers[Mailboxes] = MailboxList(mailboxes=[Mailbox(name=IRIS, uid=self.uid, open=True)])
        self.lifecycle = Peer(self.paths, "lifecycle", [Agents])
        self.lifecycle.answers[Agents] = lambda m: AgentList(agents=[self.agent])
        self.egress = Egress(
            mode="allow",
            allow=[
                f"{host}:{port}" for port in (site.https, site.http) for host in ("site.example", ADDRESS)
            ],
        )
        self.link = Link(self.paths, OPERATOR)
        self.gateway = Gateway(self.link)
        self.cage: Running | None = None

    @property
    def agent(self) -> Agent:
        spec = AgentSpec(egress=self.egress)
        return Agent(
            name=IRIS, desired="running", cage="running", cage_kind="bubblewrap", revision=1, generation=1, uid=self.uid,
            page_port=8100, spec=spec,
        )  # fmt: skip

    def deploy(self, egress: Egress) -> None:
        self.egress = egress
        self.lifecycle.publish(AgentChanged(agent=self.agent))

    async def start(self) -> None:
        plan = replace(
            self.hutch.plan(IRIS, program=DEFAULT_PROGRAM), claude=Settings.from_environment().claude
        )
        plan = replace(plan, claude_version=Settings().claude_version)
        self.hutch.cages.create(plan)
        ca = plan.state / "ca.pem"
        shutil.copyfile(self.site.ca, ca)
        ca.chmod(0o644)
        self.cage = await self.hutch.cages.start(plan)
        async with asyncio.timeout(20):
            while not self.paths.door(IRIS, "proxy").exists() or not (await self.gateway.egress(IRIS)).known:
                await asyncio.sleep(0.05)

    async def out(self, *argv: str) -> tuple[int, str]:
        done = await self.hutch.run(IRIS, *argv, timeout_seconds=40)
        return done.exit_code, done.output


def gateway_process(paths: Paths, hosts: Path, *first: str) -> subprocess.Popen[bytes]:
    """With names of its own: its resolver reads this file of hosts, as any program on the host would read the host's."""
    hosts.write_text(
        f"127.0.0.1 localhost\n{ADDRESS} site.example other.example\n169.254.169.254 metadata.example\n"
        f"{PUBLIC} public.example\n{OWN} own.example\n"
    )
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        "HIVE_RUN_DIR": str(paths.run),
        "HIVE_STATE_DIR": str(paths.state),
    }
    inside = [
        *first,
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--bind",
        str(hosts),
        "/etc/hosts",
        "--die-with-parent",
    ]
    log = (hosts.parent / "gateway.log").open("ab")
    return subprocess.Popen(
        [*inside, sys.executable, "-m", "services.gateway"], env=environ, stdout=log, stderr=log
    )


@pytest.fixture
async def scene(hutch: Hutch, site: Site, tmp_path: Path) -> AsyncIterator[Scene]:
    one = Scene(hutch, site)
    one.broker.start()
    one.lifecycle.start()
    process = gateway_process(one.paths, tmp_path / "hosts")
    yield one
    process.terminate()
    process.wait(20)
    one.broker.stop()
    one.lifecycle.stop()
    await one.link.close()


async def test_what_agents_use_goes_through_the_proxy_and_nothing_goes_past_it(scene: Scene) -> None:
    await scene.start()
    site = scene.site
    tls, plain = f"https://site.example:{site.https}", f"http://site.example:{site.http}"

    # curl, over TLS and without; what is not listed, though it is the very same host
    assert await scene.out("curl", "-sS", "--cacert", "/state/ca.pem", f"{tls}/hello.txt") == (
        0,
        "hello from the host\n",
    )
    assert await scene.out("curl", "-sS", f"{plain}/hello.txt") == (0, "hello from the host\n")
    other = f"https://other.example:{site.https}/hello.txt"
    code, said = await scene.out("curl", "-sS", "--cacert", "/state/ca.pem", other)
    assert code == 56
    assert "403" in said
    code, said = await scene.out("curl", "-sS", f"http://other.example:{site.http}/hello.txt")
    assert f"other.example:{site.http} is not in the list" in said

    # git
    clone = ("git", "-c", "http.sslCAInfo=/state/ca.pem", "clone", "-q", f"{tls}/repo.git", "/state/clone")
    assert await scene.out(*clone) == (0, "")
    assert await scene.out("cat", "/state/clone/README") == (0, "cloned\n")

    # pip
    pip = (
        PYTHON,
        "-m",
        "pip",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "install",
        "--cert",
        "/state/ca.pem",
    )
    code, said = await scene.out(*pip, "--index-url", f"{tls}/simple", "--target", "/state/site", "tiny")
    assert code == 0, said
    assert await scene.out("cat", "/state/site/tiny.py") == (0, "WORD = 'tiny'\n")

    # Python
    get = (
        "import ssl, sys, urllib.request as r; context = ssl.create_default_context(cafile='/state/ca.pem'); "
        "print(r.urlopen(sys.argv[1], timeout=20, context=context).read().decode(), end='')"
    )
    assert await scene.out("python3", "-c", get, f"{tls}/hello.txt") == (0, "hello from the host\n")
    code, said = await scene.out("python3", "-c", get, other)
    assert code != 0
    assert "403 Not Allowed By This Agent's Egress List" in said

    # past it: the host itself, its names, the metadata of a cloud
    for direct in (f"{ADDRESS}:{site.http}", f"127.0.0.1:{site.http}", "169.254.169.254:80"):
        code, said = await scene.out("curl", "-sS", "--noproxy", "*", "-m", "5", f"http://{direct}/")
        assert code == 7, said
    code, _ = await scene.out("curl", "-sS", "--noproxy", "*", "-m", "5", f"{plain}/hello.txt")
    assert code == 6, "there is no one to ask for a name"
    code, said = await scene.out("curl", "-sS", "http://metadata.example/")
    assert "not in the list" in said

    decisions = (await scene.gateway.egress(IRIS)).decisions
    seen = {(one.host, one.port, one.verdict) for one in decisions}
    assert seen == {
        ("site.example", site.https, "allowed"),
        ("site.example", site.http, "allowed"),
        ("other.example", site.https, "refused"),
        ("other.example", site.http, "refused"),
        ("metadata.example", 80, "refused"),
    }
    assert all(one.address == ADDRESS and one.bytes_down for one in decisions if one.verdict == "allowed")


async def test_a_change_takes_effect_in_the_cage_that_runs(scene: Scene) -> None:
    await scene.start()
    assert scene.cage
    before, site = scene.cage.program, scene.site
    url = f"http://site.example:{site.http}/hello.txt"
    assert (await scene.out("curl", "-sS", url))[1] == "hello from the host\n"

    # a name alone opens no special address, nor does learning: whoever owns the name decides what it means
    for egress in (Egress(mode="allow", allow=[f"site.example:{site.http}"]), Egress(mode="learn")):
        scene.deploy(egress)
        await told(scene, egress)
        _, said = await scene.out("curl", "-sS", url)
        assert f"is {ADDRESS} (loopback)" in said
        assert f"lists {ADDRESS}:{site.http} as well" in said
    _, said = await scene.out("curl", "-sS", "http://metadata.example/latest/")
    assert "169.254.169.254 (link-local)" in said

    learning = Egress(mode="learn", allow=[f"{ADDRESS}:{site.http}"])
    scene.deploy(learning)
    await told(scene, learning)
    assert (await scene.out("curl", "-sS", url))[1] == "hello from the host\n"
    report = await scene.gateway.egress(IRIS)
    assert report.learned == [f"{ADDRESS}:{site.http}", f"site.example:{site.http}"]

    scene.deploy(Egress())
    await told(scene, Egress())
    _, said = await scene.out("curl", "-sS", url)
    assert "lets nothing out" in said
    assert scene.cage.program == before
    assert scene.hutch.cages.status(scene.cage) is None


PUBLIC, OWN = "93.184.215.14", "93.184.215.1"
JOIN = f"""
set -e
ip link set lo up
ip link add outside type veth peer name inside netns "$1"
ip address add {OWN}/24 dev outside
ip link set outside up
nsenter -t "$1" -n ip address add {PUBLIC}/24 dev inside
nsenter -t "$1" -n ip link set inside up
"""


@pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="makes network namespaces, as root"
)
async def test_learning_lets_out_to_the_internet_and_not_to_this_hosts_own_address(
    hutch: Hutch, site: Site, tmp_path: Path
) -> None:
    """An internet of one host, in a network namespace; the gateway in another one, with a public address of its own."""
    scene = Scene(hutch, site)
    scene.egress = Egress(mode="learn")
    scene.broker.start()
    scene.lifecycle.start()
    internet = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    server = None
    gateway = gateway_process(scene.paths, tmp_path / "hosts", "unshare", "--net", "--")
    try:
        await in_namespace(internet.pid)
        await in_namespace(gateway.pid)
        await asyncio.to_thread(
            run, "nsenter", "-t", str(gateway.pid), "-n", "sh", "-c", JOIN, "sh", str(internet.pid)
        )
        serve = [
            "nsenter",
            "-t",
            str(internet.pid),
            "-n",
            sys.executable,
            "-m",
            "http.server",
            "80",
            "--bind",
            PUBLIC,
        ]
        environ = {"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}
        server = subprocess.Popen(
            [*serve, "--directory", str(site.root)], env=environ, stderr=subprocess.DEVNULL
        )
        await scene.start()
        curl = ("curl", "-sS", "--retry", "20", "--retry-delay", "0", "--retry-all-errors")
        assert await scene.out(*curl, f"http://{PUBLIC}/hello.txt") == (0, "hello from the host\n")
        assert await scene.out(*curl, "http://public.example/hello.txt") == (0, "hello from the host\n")
        _, said = await scene.out("curl", "-sS", "http://own.example:8080/")
        assert f"own.example is {OWN} (this host's own)" in said
        assert (await scene.gateway.egress(IRIS)).learned == [f"{PUBLIC}:80", "public.example:80"]
    finally:
        for process in filter(None, (gateway, server, internet)):
            process.terminate()
            await asyncio.to_thread(process.wait, 20)
        scene.broker.stop()
        scene.lifecycle.stop()
        await scene.link.close()


async def in_namespace(pid: int) -> None:
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            await asyncio.sleep(0.01)


async def told(scene: Scene, egress: Egress) -> None:
    async with asyncio.timeout(10):
        while True:
            report = await scene.gateway.egress(IRIS)
            if egress == Egress(mode=report.mode, allow=report.allow):
                return
            await asyncio.sleep(0.02)
