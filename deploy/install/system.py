"""What is asked of systemd: users, directories, units."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.install.versions import SERVICES
from deploy.setup import setup

TARGET = "hyperhive.target"
UNITS = tuple(f"hive-{name}.service" for name in SERVICES)
CAGES, BUILDS = "hive-cage@*.service", "hive-build@*.service"
SLICES = ("hive-builds.slice", "hive-cages.slice", "hive-services.slice", "hive.slice")
SET = ("/etc/systemd/system.control", "/run/systemd/system.control")
USERS = tuple(f"hive-{name}" for name in (*SERVICES, "builder"))
GROUPS = ("hive", "hive-admin")
BUILDER = "hive-builder"
IDS = range(524_288, 524_288 + 65_536)
UP_SECONDS_MAX = 60
PROGRAMS = {
    "dbus": "dbus-daemon",
    "mmdebstrap": "mmdebstrap",
    "polkitd": "pkaction",
    "systemd-container": "systemd-nspawn",
}
"""Debian packages by a program of theirs."""


def check() -> None:
    if not Path("/run/systemd/system").is_dir():
        raise setup.SetUpError(
            "this machine was not booted by systemd", "without it a hive runs as well, by: make up"
        )


def packages() -> list[str]:
    """Names of Debian packages for what is missing here."""
    missing = [package for package, program in PROGRAMS.items() if shutil.which(program) is None]
    return [*missing, *(name for name in setup.wanted_packages(for_tests=False) if name != "bubblewrap")]


def make_users_and_directories() -> None:
    setup.run(["systemd-sysusers", "/etc/sysusers.d/hyperhive.conf"])
    give_users(BUILDER, Path("/etc"))
    _quietly("systemctl", "reload", "dbus")
    setup.run(["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/hyperhive.conf"])


def give_users(user: str, etc: Path) -> None:
    """The ids that whatever is built here runs as: those of the agent with the number 0, who is none."""
    for kind in ("uid", "gid"):
        table = etc / f"sub{kind}"
        lines = table.read_text().splitlines() if table.is_file() else []
        if not any(line.startswith(f"{user}:") for line in lines):
            setup.run(["usermod", f"--add-sub{kind}s", f"{IDS[0]}-{IDS[-1]}", user])


def start(*, anew: bool) -> None:
    """`anew`: those that run are restarted. Cages are units of their own, and go on."""
    verb = "restart" if anew and _state(TARGET) == "active" else "start"
    setup.run(["systemctl", "daemon-reload"])
    setup.run(["systemctl", "enable", "--quiet", TARGET, *UNITS])
    setup.run(["systemctl", "reset-failed", *UNITS])
    setup.run(["systemctl", verb, "--no-block", TARGET, *UNITS])
    _await_up()


def stop() -> None:
    """Services first: lifecycle would start its cages again."""
    _quietly("systemctl", "disable", "--quiet", TARGET, *UNITS)
    _quietly("systemctl", "stop", TARGET, *UNITS)
    _quietly("systemctl", "stop", CAGES, BUILDS)
    _quietly("systemctl", "stop", *SLICES)


def forget() -> None:
    """What lifecycle had systemd set of a cage is kept by it in files that outlive the unit."""
    for place in SET:
        for drop_ins in Path(place).glob("hive-cage@*.service.d"):
            shutil.rmtree(drop_ins, ignore_errors=True)
    _quietly("systemctl", "daemon-reload")
    _quietly("systemctl", "reset-failed", "hive-*", TARGET)


def remove_users() -> None:
    """Users before groups: a group that is somebody's own cannot go."""
    for user in USERS:
        _quietly("userdel", user)
    for group in (*GROUPS, *USERS):
        _quietly("groupdel", group)


def _await_up() -> None:
    end = time.monotonic() + UP_SECONDS_MAX
    while not_up := [unit for unit in UNITS if _state(unit) != "active"]:
        if time.monotonic() > end:
            raise setup.SetUpError(
                f"these do not come up: {' '.join(not_up)}",
                f"what they say: journalctl -b -n 50 {' '.join(f'-u {unit}' for unit in not_up)}",
            )
        time.sleep(0.2)


def _state(unit: str) -> str:
    said = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def _quietly(*command: str) -> None:
    """What is not there cannot be stopped or removed, which is as well."""
    _log(
        command,
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False),
    )


def _log(command: Sequence[str], ended: subprocess.CompletedProcess[str]) -> None:
    with setup.LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n{ended.stdout}{ended.stderr}")
