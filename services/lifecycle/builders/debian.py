"""A root of Debian packages, made by mmdebstrap from what this host's own apt knows and trusts."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from libhive.problems import BadRequest, Conflict
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders.recipe import Contents, Recipe, Work

RECIPE_VERSION = 1
"""To be counted up with every change of what `work` does: what was built before is then built anew."""
NEEDED = ("bash", "ca-certificates", "curl", "git", "procps", "python3")
"""What the harness and Claude Code need, on top of what no Debian is without."""
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ASK_SECONDS_MAX = 20.0
_LEFT_OUT = ("doc/*", "groff/*", "info/*", "lintian/*", "linda/*", "locale/*", "man/*")


class DebianBuilder:
    kind: RootKind = "debian"

    def __init__(self, etc: Path = Path("/etc"), interpreter: Path | None = None) -> None:
        self._etc = etc
        self._interpreter = interpreter or Path(sys.executable).resolve()

    async def check(self, spec: AgentSpec) -> None:
        self.recipe(spec)

    def recipe(self, spec: AgentSpec) -> Recipe:
        for name in spec.packages:
            if name.endswith("-"):  # to apt it is a wish to be rid of it
                raise BadRequest(f"{name!r} is not the name of a Debian package")
        return Recipe(
            builder="debian",
            version=RECIPE_VERSION,
            source=suite(self._etc / "os-release"),
            architecture=os.uname().machine,
            variant="minbase",
            packages=tuple(sorted({*NEEDED, *spec.packages})),
            inputs=spec.inputs,
        )

    async def work(self, recipe: Recipe, stage: Path) -> Work:
        for program, package in (("mmdebstrap", "mmdebstrap"), ("apt-get", "apt"), ("tar", "tar")):
            if shutil.which(program) is None:
                raise Conflict(
                    f'{program} is not installed: it makes the roots of agents with root = "debian"',
                    f"sudo apt-get install -y {package}",
                )
        argv = command_line(recipe, sources(self._etc / "apt"), await proxies())
        return Work(argv=argv, environ=environment(stage, os.environ), output="archive")

    def accept(self, recipe: Recipe, tree: Path, contents: Contents) -> None:
        """Raises Conflict for a root that an agent could not live in."""
        if absent := sorted({*recipe.packages} - contents.packages.keys()):
            raise Conflict(
                f"apt took something else for {', '.join(absent)}: there is no package of exactly this name",
                "name the package that provides it",
            )
        python = self._interpreter
        if python.is_relative_to("/usr") and not (tree / python.relative_to("/")).exists():
            raise Conflict(
                f"the hive runs on {python}, which {recipe.source} does not have",
                f"run the hive on the Python of {recipe.source}: /usr/bin/python3",
            )


def command_line(recipe: Recipe, sources: Sequence[Path], proxies: Mapping[str, str]) -> list[str]:
    """The user that executes it is root in a user namespace of its own: `unshare` is then the mode that makes no
    other, and binds what it may not make."""
    return [
        "mmdebstrap",
        "--mode=unshare",
        "--format=tar",
        f"--variant={recipe.variant}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{each}" for each in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-include=/usr/share/locale/locale.alias",
        *(f'--aptopt={option} "{url}"' for option, url in sorted(proxies.items())),
        f"--include={','.join(recipe.packages)}",
        recipe.source,
        "-",
        *map(str, sources),
    ]


def environment(stage: Path, environ: Mapping[str, str]) -> dict[str, str]:
    passed = {name: environ[name] for each in PROXIES for name in (each, each.upper()) if name in environ}
    own = {
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "PATH": PATH,
        "TMPDIR": str(stage),
    }
    return passed | own


def suite(os_release: Path) -> str:
    """The codename of the distribution that this host runs."""
    text = os_release.read_text() if os_release.is_file() else ""
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    codename = "".join(shlex.split(fields.get("VERSION_CODENAME", "")))
    if not re.fullmatch(r"[a-z][a-z0-9-]*", codename):
        raise Conflict(
            "this host does not say which release of Debian or Ubuntu it is",
            'only on Debian and Ubuntu can an agent have root = "debian"',
        )
    return codename


def sources(apt: Path) -> list[Path]:
    """Where the host's packages come from. A list that is not for everybody to read holds somebody's password."""
    places = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    found = [
        place
        for place in places
        if place.suffix in (".list", ".sources")
        and place.is_file()
        and place.stat().st_mode & 0o004
        and re.search(r"^\s*(deb\s|types:)", place.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE)
    ]
    if not found:
        raise Conflict(f"{apt} names no source of packages", "see: man sources.list")
    return found


async def proxies() -> dict[str, str]:
    """Those of the host's apt: mmdebstrap takes none of its configuration over."""
    names = {"HTTP": "Acquire::http::Proxy", "HTTPS": "Acquire::https::Proxy"}
    asked = [word for name, option in names.items() for word in (name, option)]
    process = await asyncio.create_subprocess_exec(
        "apt-config",
        "shell",
        *asked,
        env={"PATH": PATH, "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(ASK_SECONDS_MAX):
        said, _ = await process.communicate()
    given = dict(word.partition("=")[::2] for word in shlex.split(said.decode(errors="replace")))
    return {names[name]: url for name, url in given.items() if url and '"' not in url}
