"""What doctor looks at where `make install` has been: is all of it there, and as it was put there?"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from libhive.admin.findings import Finding, run
from libhive.admin.session import ADMINS, SERVICES
from libhive.paths import Paths
from libhive.release import INSTALLED, TARGET

MEND = "sudo make install   (in a checkout of hyperhive)"
SETTINGS = Path("/etc/hyperhive/hive.env")
DIRECTORIES = Path("/etc/tmpfiles.d/hyperhive.conf")
RECORD = INSTALLED / "installed.json"
HIVE = "hive"
USERS = tuple(f"hive-{name}" for name in sorted((*SERVICES, "builder")))
UNITS = tuple(f"hive-{name}.service" for name in SERVICES)
ASKED = ("LoadState", "UnitFileState", "ActiveState", "NeedDaemonReload")
PROGRAMS = {"systemd-nspawn": "systemd-container", "machinectl": "systemd-container", "pkaction": "polkitd"}
"""What cages need, and the Debian package that has it."""
CONTROLLERS = ("cpu", "memory", "pids")
IDMAPPED = ("bcachefs", "btrfs", "erofs", "exfat", "ext4", "f2fs", "tmpfs", "vfat", "xfs", "zfs")
"""File systems whose files a cage can be given under other owners."""
PORT_DEFAULT = 7000
LISTENING = "0A"


def findings(paths: Paths) -> list[Finding]:
    return [
        users(),
        members(),
        caller(),
        files(RECORD),
        *directories(DIRECTORIES),
        *states(paths),
        *units(),
        programs(),
        polkit(),
        user_namespaces(Path("/proc/sys")),
        idmapped_mounts(paths.state, Path("/proc")),
        controllers(Path("/sys/fs/cgroup")),
        port(SETTINGS, Path("/proc")),
    ]


def users() -> Finding:
    wanted = [user for user in USERS if not _uid(user)]
    wanted += [group for group in (HIVE, ADMINS) if not _has_group(group)]
    detail = f"missing: {' '.join(wanted)}" if wanted else f"{len(USERS)} users, groups {HIVE} and {ADMINS}"
    return Finding(check="users", ok=not wanted, detail=detail, mend=MEND)


def members() -> Finding:
    """Services use the hive as admins do, by its bus."""
    strangers = [f"hive-{name}" for name in SERVICES if f"hive-{name}" not in _members(ADMINS)]
    detail = (
        f"not in the group {ADMINS}: {' '.join(strangers)}" if strangers else f"all in the group {ADMINS}"
    )
    line = "; ".join(f"sudo adduser {user} {ADMINS} && sudo systemctl restart {user}" for user in strangers)
    return Finding(check="members", ok=not strangers, detail=detail, mend=line)


def caller() -> Finding:
    name = pwd.getpwuid(os.geteuid()).pw_name
    ok = os.geteuid() == 0 or name in _members(ADMINS)
    return Finding(
        check="you",
        ok=ok,
        detail=f"{name} may {'' if ok else 'not '}use the hive",
        mend=f"sudo adduser {name} {ADMINS}, then log in anew",
    )


def files(record: Path) -> Finding:
    """Against the hashes that were taken when they were put there."""
    try:
        recorded: dict[str, str] = json.loads(record.read_text())["files"]
    except (OSError, ValueError, KeyError):
        return Finding(check="files", ok=False, detail=f"{record} does not say what is installed", mend=MEND)
    wrong, unread = [], 0
    for name, hash in recorded.items():
        try:
            if hashlib.sha256(Path(name).read_bytes()).hexdigest() != hash:
                wrong.append(f"{name} was changed")
        except FileNotFoundError:
            wrong.append(f"{name} is gone")
        except PermissionError:
            unread += 1
    told = f"{len(recorded)} as they were installed" + (
        f", {unread} of them only root can read" if unread else ""
    )
    return Finding(check="files", ok=not wrong, detail="; ".join(wrong) or told, mend=MEND)


def directories(tmpfiles: Path) -> Iterator[Finding]:
    mend = f"sudo systemd-tmpfiles --create {tmpfiles}"
    try:
        lines = [line.split() for line in tmpfiles.read_text().splitlines() if line.startswith("d ")]
    except OSError:
        return  # said among the files
    for _, path, mode, user, group, *_ in lines:
        yield _directory(Path(path), f"{int(mode, 8):04o} {user}:{group}", mend)


def states(paths: Paths) -> Iterator[Finding]:
    for service in SERVICES:
        unit = f"hive-{service}"
        mend = f"sudo chown -R {unit}:{HIVE} {paths.own(service)} && sudo chmod 700 {paths.own(service)}"
        yield _directory(paths.own(service), f"0700 {unit}:{HIVE}", mend)


def _directory(path: Path, wanted: str, mend: str) -> Finding:
    try:
        found = path.stat()
    except FileNotFoundError:
        return Finding(check="directory", ok=False, detail=f"{path} is not there", mend=mend)
    except PermissionError:
        return Finding(check="directory", ok=True, detail=f"{path} is not yours to look at")
    has = f"{stat.S_IMODE(found.st_mode):04o} {_user(found.st_uid)}:{_group(found.st_gid)}"
    detail = f"{path} {has}" + ("" if has == wanted else f", and should be {wanted}")
    return Finding(check="directory", ok=has == wanted, detail=detail, mend=mend)


def units() -> Iterator[Finding]:
    for unit in (TARGET, *UNITS):
        status, said = run(["systemctl", "show", unit, f"--property={','.join(ASKED)}"])
        if status:
            yield Finding(check="unit", ok=False, detail=f"{unit}: {said.strip()}", mend=MEND)
        else:
            yield judged(unit, dict(line.split("=", 1) for line in said.splitlines()))


def judged(unit: str, about: dict[str, str]) -> Finding:
    wrong, mend = "", ""
    if about["LoadState"] != "loaded":
        wrong, mend = (
            about["LoadState"],
            "sudo systemctl unmask " + unit if about["LoadState"] == "masked" else MEND,
        )
    elif about["ActiveState"] != "active":
        wrong, mend = about["ActiveState"], f"sudo systemctl start {unit}   (why: journalctl -u {unit} -n 50)"
    elif about["UnitFileState"] != "enabled":
        wrong = f"{about['UnitFileState']}: it does not start with the machine"
        mend = f"sudo systemctl enable {unit}"
    elif about["NeedDaemonReload"] == "yes":
        wrong, mend = "its file was changed since it was read", "sudo systemctl daemon-reload"
    return Finding(check="unit", ok=not wrong, detail=f"{unit} {wrong or 'active, enabled'}", mend=mend)


def programs() -> Finding:
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        line = f"sudo apt-get install {' '.join(missing)}"
        return Finding(check="programs", ok=False, detail=f"missing: {' '.join(missing)}", mend=line)
    _, said = run(["systemctl", "--version"])
    return Finding(check="programs", ok=True, detail=said.splitlines()[0] if said else "all there")


def polkit() -> Finding:
    """Whether lifecycle may do what it has to, as polkit itself decides; only root may ask that about another."""
    _, said = run(["systemctl", "show", "hive-lifecycle.service", "--property=MainPID", "--value"])
    if os.geteuid() or not said.strip().isdigit() or said.strip() == "0":
        return Finding(check="polkit", ok=True, detail="only root can ask, while hive-lifecycle runs")
    asked = {"unit": "hive-cage@doctor.service", "verb": "start"}
    details = [part for name, value in asked.items() for part in ("--detail", name, value)]
    action = ["--action-id", "org.freedesktop.systemd1.manage-units", "--process", said.strip()]
    status, why = run(["pkcheck", *action, *details])
    if status == 0:
        return Finding(check="polkit", ok=True, detail="lets hive-lifecycle start the units of cages")
    detail = f"does not let hive-lifecycle start the units of cages: {why.strip()[:200]}"
    return Finding(
        check="polkit", ok=False, detail=detail, mend=f"{MEND}; then: sudo systemctl restart polkit"
    )


# ---- what the kernel has


def user_namespaces(sysctl: Path) -> Finding:
    try:
        most = int((sysctl / "user/max_user_namespaces").read_text())
    except (OSError, ValueError):
        most = 0
    mend = "sudo sysctl -w user.max_user_namespaces=65536   (and in /etc/sysctl.d, to keep it)"
    detail = f"user namespaces: {most}" if most else "this kernel makes no user namespaces"
    return Finding(check="kernel", ok=most > 0, detail=detail, mend=mend)


def idmapped_mounts(state: Path, proc: Path) -> Finding:
    lines = [line.split() for line in (proc / "self/mountinfo").read_text().splitlines()]
    mounts = [(Path(part[4]), part[part.index("-") + 1]) for part in lines]
    _, kind = max(
        (found for found in mounts if state.is_relative_to(found[0])), key=lambda m: len(m[0].parts)
    )
    ok = kind in IDMAPPED
    detail = f"{state} lies on {kind}" + (
        "" if ok else ", which cannot be mounted with other owners in a cage"
    )
    return Finding(
        check="idmap", ok=ok, detail=detail, mend=f"mount a file system of ext4, xfs or btrfs at {state}"
    )


def controllers(cgroups: Path) -> Finding:
    try:
        there = (cgroups / "cgroup.controllers").read_text().split()
    except FileNotFoundError:  # version 1, one directory each
        there = [name for name in CONTROLLERS if (cgroups / name).is_dir()]
    missing = [name for name in CONTROLLERS if name not in there]
    detail = (
        f"missing: {' '.join(missing)}: limits of cages do not hold" if missing else " ".join(CONTROLLERS)
    )
    mend = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory"
    return Finding(check="cgroups", ok=not missing, detail=detail, mend=mend)


def port(settings: Path, proc: Path) -> Finding:
    """Whose the dashboard's is. Each line of the table has address:port, peer, state, queues, timer, retries, uid."""
    wanted = _port(settings)
    rows = [line.split() for name in ("tcp", "tcp6") for line in _lines(proc / "net" / name)[1:]]
    holders = {
        int(row[7]) for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == wanted
    }
    ours = _uid("hive-dashboard")
    if holders - {ours}:
        detail = f"{wanted} is taken by user {_user((holders - {ours}).pop())}"
        mend = f"stop that, or choose another HIVE_DASHBOARD_PORT in {settings}, then: sudo systemctl restart hive-dashboard"
        return Finding(check="port", ok=False, detail=detail, mend=mend)
    detail = f"{wanted} is the dashboard's" if holders else f"nobody listens on {wanted}"
    return Finding(
        check="port", ok=bool(holders), detail=detail, mend="sudo systemctl restart hive-dashboard"
    )


def _port(settings: Path) -> int:
    found = re.findall(r"^HIVE_DASHBOARD_PORT=([0-9]{1,5})$", "\n".join(_lines(settings)), re.MULTILINE)
    return int(found[-1]) if found else PORT_DEFAULT


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _uid(user: str) -> int:
    """0 for nobody of that name; none of ours is root."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0


def _has_group(group: str) -> bool:
    try:
        return bool(grp.getgrnam(group))
    except KeyError:
        return False


def _members(group: str) -> list[str]:
    return grp.getgrnam(group).gr_mem if _has_group(group) else []


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
