"""What is timed of cages, on the host or in a booted container:

python -m tests.bench.caged start COUNT        milliseconds until so many nspawn cages are up, begun at once
python -m tests.bench.caged bare COUNT         the same of bare systemd-nspawn, as root
python -m tests.bench.caged memory NAME...     MB PSS of a cage, the mean of these, and of the bare CLI
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from services.lifecycle.cages import Plan, Running
from services.lifecycle.cages.plan import Installation
from tests.bench import limits
from tests.bench.usage import pss_mb, with_children
from tests.cages.conftest import INSTALLED, Hutch

UP = "up"
SIGN = f"import os, time; open(os.environ['HIVE_PAGE'] + '/{UP}', 'w').close(); time.sleep(1000)"
"""What runs in a cage and in the bare command alike: it says that it is there."""
POLL_SECONDS = 0.001
UP_SECONDS_MAX = 60.0
NUMBER_FIRST = 500
"""Of the cages here: no agent of an installed hive has got that far."""
RANGE_FIRST, RANGE = 524_288 + 65_536 * 600, 65_536
PREFIX = "/opt/hyperhive/venv"
CLAUDE = "/opt/hyperhive/libexec/claude"


# ---- our own


async def caged(hutch: Hutch, count: int) -> float:
    """Milliseconds from `start` called for all of them until each has returned and its program has given its sign."""
    plans = [hutch.plan(f"bench-{n}", NUMBER_FIRST + n, ("-c", SIGN)) for n in range(count)]
    for plan in plans:
        hutch.cages.create(plan)
        (plan.page / UP).unlink(missing_ok=True)
    began = time.perf_counter()
    found = await asyncio.gather(*(_up(hutch, plan) for plan in plans), return_exceptions=True)
    took = (time.perf_counter() - began) * 1000
    await asyncio.gather(*(hutch.cages.kill(cage) for cage in found if isinstance(cage, Running)))
    for plan in plans:
        await hutch.cages.destroy(plan.name)
        shutil.rmtree(plan.state)
        shutil.rmtree(plan.doors, ignore_errors=True)  # where its kind has not removed them
    for error in found:
        if isinstance(error, BaseException):
            raise error
    return took


async def _up(hutch: Hutch, plan: Plan) -> Running:
    cage = await hutch.cages.start(plan)
    async with asyncio.timeout(UP_SECONDS_MAX):
        while not (plan.page / UP).exists():
            await asyncio.sleep(POLL_SECONDS)
    return cage


# ---- the bare commands


def bare_bubblewraps(place: Path, count: int) -> float:
    installation = Installation.of_this_process()
    command = [*limits.BARE_BUBBLEWRAP, "--setenv", "HIVE_PAGE", "/run/page"]
    for bind in installation.binds:
        command += ["--ro-bind", str(bind.source), bind.target]
    ends = ("--", installation.python, "-c", SIGN)
    pages = _pages(place, count)
    return _until_up([[*command, "--bind", str(page), "/run/page", *ends] for page in pages], pages)


def bare_nspawns(place: Path, count: int) -> float:
    """Each a machine of machined's in a scope of its own, with a range of users, no network and no capabilities."""
    tree = place / "tree"
    for name in ("dev", "etc", "opt/hive/venv", "proc", "root", "run/page", "sys", "tmp", "usr", "var"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    pages = _pages(place, count)
    for number, page in enumerate(pages):
        os.chown(page, _range(number), _range(number))
    return _until_up([_nspawn(tree, page, number) for number, page in enumerate(pages)], pages)


def _nspawn(tree: Path, page: Path, number: int) -> list[str]:
    argv = ["systemd-nspawn", "--quiet", "--settings=no", "--console=pipe", f"--machine=bare-{number}"]
    argv += [f"--directory={tree}", "--read-only", "--private-network", "--drop-capability=all"]
    argv += [f"--private-users={_range(number)}:{RANGE}", "--private-users-ownership=off"]
    argv += ["--no-new-privileges=yes", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    argv += ["--bind-ro=/usr", f"--bind-ro={PREFIX}:/opt/hive/venv", f"--bind={page}:/run/page"]
    return [*argv, "--setenv=HIVE_PAGE=/run/page", "--", "/opt/hive/venv/bin/python", "-c", SIGN]


def _range(number: int) -> int:
    return RANGE_FIRST + RANGE * number


def _pages(place: Path, count: int) -> list[Path]:
    pages = [place / str(number) for number in range(count)]
    for page in pages:
        page.mkdir()
    return pages


def _until_up(commands: Sequence[list[str]], pages: Sequence[Path]) -> float:
    processes = []
    began = time.perf_counter()
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        waiting = [page / UP for page in pages]
        while waiting := [sign for sign in waiting if not sign.exists()]:
            if time.perf_counter() - began > UP_SECONDS_MAX or any(
                one.poll() is not None for one in processes
            ):
                raise RuntimeError(f"not all of the bare commands came up; the first was {commands[0]}")
            time.sleep(POLL_SECONDS)
        return (time.perf_counter() - began) * 1000
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


# ---- memory


def memory_of(keepers: Sequence[int], claude: str, settle_seconds: float) -> tuple[float, float]:
    """MB PSS of a cage, with all that holds it, and of the bare CLI."""
    with tempfile.TemporaryDirectory() as home, limits.bare_claude(claude, Path(home)) as bare:
        time.sleep(settle_seconds)
        pids = [pid for keeper in keepers for pid in with_children(keeper)]
        return pss_mb(pids) / len(keepers), pss_mb(with_children(bare))


def keeper_of_unit(name: str) -> int:
    show = ["systemctl", "show", "--property=MainPID", "--value", f"hive-cage@{name}.service"]
    return int(subprocess.run(show, capture_output=True, text=True, check=True).stdout)


def main(what: str, *given: str) -> None:
    with tempfile.TemporaryDirectory(dir="/run" if os.geteuid() == 0 else None) as place:
        match what:
            case "start":
                found = [asyncio.run(_after_one(int(given[0])))]
            case "bare":
                Path(place).chmod(0o755)
                found = [bare_nspawns(Path(place), int(given[0]))]
            case _:
                settle, *names = given
                found = [*memory_of([keeper_of_unit(name) for name in names], CLAUDE, float(settle))]
    print(*found)


async def _after_one(count: int) -> float:
    """As in a lifecycle that has its connection to systemd already."""
    hutch = Hutch("nspawn", INSTALLED)
    await caged(hutch, 1)
    return await caged(hutch, count)


if __name__ == "__main__":
    main(*sys.argv[1:])
