"""Cages by bubblewrap: the embedded default, on any Linux, as root or as an ordinary user.

As root each agent gets a user of its own, and bwrap runs as that user. It could then not reach sources below a
directory that is closed to it (a state directory or a virtual environment below /root), so these are bound first, as
root, to a reachable place, in a mount namespace that only the keeper and its cage have.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from libhive.names import machine_name
from libhive.problems import Conflict
from services.lifecycle.cages import directories, kernel, limits, seccomp
from services.lifecycle.cages.keeper import Command, Kept, Running, read_status
from services.lifecycle.cages.plan import Bind, Inside, Installation, Plan, environment

VERSION_MIN = (0, 8, 0)
"""The first with --disable-userns."""
_PROGRAMS = ("bwrap", "cat", "nsenter", "prlimit")
_ROOTS_PROGRAMS = ("mount", "setpriv", "unshare")
CHECK_SECONDS_MAX = 20.0
STAGES = ("/mnt", "/media", "/srv", "/opt")
"""Where the private mount namespace may put its binds: the first that hides none of their sources."""
NAMESPACES = {
    "ipc": "own-ipc",
    "mnt": "own-mounts",
    "net": "no-network",
    "pid": "own-processes",
    "user": "own-users",
}
"""Kernel's name -> ours of the control."""

_ETC_OF_HOST = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types",
    "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
)  # fmt: skip
"""What programs below /usr look for; nothing that is a secret on any distribution."""

_KEEP = 'read -r _ || exit 125; "$@" </dev/null; exit $?'
_KEEP_STAGED = (
    'read -r _ || exit 125; mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$1" && mount --all --fstab "$2" || exit 125; '
    'shift 2; "$@" </dev/null; exit $?'
)


@dataclass(frozen=True, slots=True)
class Line:
    """The keeper's command line, and the fstab it reads."""

    argv: list[str]
    fstab: str


class Bubblewrap(Kept):
    kind = "bubblewrap"

    def check(self) -> None:
        as_root = os.geteuid() == 0
        for program in (*_PROGRAMS, *_ROOTS_PROGRAMS) if as_root else _PROGRAMS:
            if shutil.which(program) is None:
                raise _missing(program)
        _check_version()
        seccomp.program(platform.machine())
        if as_root:
            _check_readable(self.installation)
        _check_namespaces(as_root)

    def command(self, plan: Plan, status_fd: int, stack: contextlib.ExitStack) -> Command:
        filter_fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        stack.callback(os.close, filter_fd)
        os.write(filter_fd, seccomp.program(platform.machine()))
        os.lseek(filter_fd, 0, os.SEEK_SET)
        line = command_line(
            plan, self.installation, as_root=os.geteuid() == 0, status_fd=status_fd, filter_fd=filter_fd
        )
        (plan.run / "fstab").write_text(line.fstab)
        return Command(line.argv, (filter_fd,))

    def find(self, cage: Running) -> bool:
        if cage.init is None:
            pid = read_status(cage.run).get("child-pid", 0)
            cage.init = kernel.Process.open(pid) if pid else None
        if cage.init is None:
            return False
        for pid in kernel.children(cage.init.pid):
            # the second process of the namespace is the program, from when it is no longer bwrap's fork
            if kernel.status(pid).get("NSpid", "").split()[-1:] == ["2"] and kernel.command_name(pid) not in (
                "bwrap",
                "prlimit",
            ):
                cage.program = pid
                return True
        return False

    def controls_of(self, cage: Running) -> Mapping[str, bool]:
        pid, status = cage.program, kernel.status(cage.program)
        controls = {name: _differs(pid, kind) for kind, name in NAMESPACES.items()}
        controls["no-network"] &= kernel.interfaces(pid) == ["lo"]
        controls["no-capabilities"] = all(
            int(status.get(f"Cap{which}", "1"), 16) == 0 for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")
        )
        controls["no-nested-namespaces"] = kernel.user_namespaces_max(pid) == 1  # by --disable-userns
        controls["no-new-privileges"] = status.get("NoNewPrivs") == "1"
        controls["read-only-doors"] = kernel.is_read_only(pid, Inside().doors)
        controls["read-only-root"] = kernel.is_read_only(pid, "/")
        controls["seccomp"] = status.get("Seccomp") == "2"
        if os.geteuid() == 0:
            controls["uid"] = set(status.get("Uid", "").split()) == {str(cage.record.uid)}
        return dict(sorted(controls.items()))


def command_line(
    plan: Plan, installation: Installation, *, as_root: bool, status_fd: int, filter_fd: int
) -> Line:
    """What is executed for this plan. Touches nothing, so that a test can compare it with a golden file."""
    binds = [*_binds(plan, installation), *installation.binds]
    root = Bind(plan.root or Path("/"), "/")
    if not as_root:
        return Line(
            ["sh", "-c", _KEEP, "hive-cage", *_bwrap(plan, installation, root, binds, status_fd, filter_fd)],
            "",
        )
    stage = staging_place([bind.source for bind in binds])
    if plan.root:
        (*binds, root), fstab = staged([*binds, root], stage)
    else:
        binds, fstab = staged(binds, stage)
    user = str(plan.uid)
    argv = ["unshare", "--mount", "--propagation", "private", "--"]
    argv += ["sh", "-c", _KEEP_STAGED, "hive-cage", str(stage), str(plan.run / "fstab")]
    argv += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", "KILL", "--"]
    return Line(argv + _bwrap(plan, installation, root, binds, status_fd, filter_fd), fstab)


def staging_place(sources: Sequence[Path], exists: Callable[[str], bool] = os.path.isdir) -> Path:
    for place in STAGES:
        if exists(place) and not any(source.is_relative_to(place) for source in sources):
            return Path(place)
    raise Conflict(
        f"there is no room to bind a cage's directories: everything lies below {', '.join(STAGES)}"
    )


def staged(binds: Sequence[Bind], stage: Path) -> tuple[list[Bind], str]:
    """The same binds from below `stage`, and the fstab that fills it. A file is reached through its directory."""
    moved, lines, places = [], [], dict[Path, Path]()
    for bind in binds:
        directory = bind.source.parent if bind.is_file else bind.source
        if directory not in places:
            places[directory] = stage / str(len(places))
            lines.append(f"{_escaped(directory)} {places[directory]} none bind,X-mount.mkdir 0 0\n")
        place = places[directory]
        moved.append(replace(bind, source=place / bind.source.name if bind.is_file else place))
    return moved, "".join(lines)


def _binds(plan: Plan, installation: Installation) -> list[Bind]:
    inside = Inside()
    binds = [
        Bind(plan.doors, inside.doors),
        Bind(plan.page, inside.page, writable=True),
        Bind(plan.state, inside.state, writable=True),
        Bind(plan.spec_file, inside.spec, is_file=True),
        *(Bind(plan.run / name, f"/etc/{name}", is_file=True) for name in directories.ETC_FILES),
    ]
    if plan.nix is not None:
        binds.append(Bind(plan.nix, "/nix"))
    if plan.claude is not None:
        binds.append(Bind(plan.claude, inside.claude, is_file=True))
    return binds


def _bwrap(
    plan: Plan,
    installation: Installation,
    root: Bind,
    binds: Sequence[Bind],
    status_fd: int,
    filter_fd: int,
) -> list[str]:
    argv = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
    ]
    argv += ["--json-status-fd", str(status_fd), "--seccomp", str(filter_fd)]
    argv += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", machine_name(plan.name)]
    argv += ["--clearenv"]
    for name, value in environment(plan, Inside(python_path=installation.python_path)).items():
        argv += ["--setenv", name, value]
    argv += ["--ro-bind", str(root.source / "usr"), "/usr"]
    for name in ("bin", "lib", "lib64", "sbin"):
        argv += ["--symlink", f"usr/{name}", f"/{name}"]
    for source in _ETC_OF_HOST:
        argv += ["--ro-bind-try", str(root.source / source.removeprefix("/")), source]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - the cage's own
    for bind in binds:
        argv += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    argv += ["--remount-ro", "/", "--chdir", "/state", "--"]
    return [*argv, *limits.prlimit(plan.spec.limits, plan.by_rlimit), installation.python, *plan.program]


def _escaped(path: Path) -> str:
    """As fstab(5) wants it."""
    return re.sub(r"[\s\\#]", lambda match: f"\\{ord(match[0]):03o}", str(path))


def _differs(pid: int, kind: str) -> bool:
    theirs = kernel.namespace(pid, kind)
    return bool(theirs) and theirs != kernel.namespace("self", kind)


def _missing(program: str) -> Conflict:
    package = {"bwrap": "bubblewrap", "cat": "coreutils"}.get(program, "util-linux")
    return Conflict(
        f"{program} is not installed; without it an agent has no cage to live in",
        f"sudo apt-get install {package}   (or your distribution's package {package})",
    )


def _check_version() -> None:
    text = subprocess.run(
        ["bwrap", "--version"], capture_output=True, text=True, timeout=CHECK_SECONDS_MAX
    ).stdout
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    if found < VERSION_MIN:
        raise Conflict(
            f"{text.strip() or 'bwrap'} is too old for the control `no-nested-namespaces`",
            f"install bubblewrap {'.'.join(map(str, VERSION_MIN))} or newer",
        )


def _check_readable(installation: Installation) -> None:
    """The agents' users are others to these trees."""
    for bind in installation.binds:
        if bind.source.stat().st_mode & 0o005 != 0o005:
            raise Conflict(
                f"agents could not read {bind.source} in their cages", f"sudo chmod -R o+rX {bind.source}"
            )


def _check_namespaces(as_root: bool) -> None:
    """A cage of nothing: says at once what would otherwise fail five times in the background."""
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"] if as_root else []
    trial = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000"]
    trial += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
    done = subprocess.run([*become, *trial], capture_output=True, text=True, timeout=CHECK_SECONDS_MAX)
    if done.returncode == 0:
        return
    said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    raise Conflict(f"this host does not let bubblewrap make a cage: {said[0]:.200}", _userns_hint())


def _userns_hint() -> str:
    for setting, forbidding, allowing in (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", *setting.split(".")).read_text().strip() == forbidding:
                return f"sudo sysctl -w {setting}={allowing}"
    return "in a container, run it with user namespaces allowed; see docs/gotchas.md"
