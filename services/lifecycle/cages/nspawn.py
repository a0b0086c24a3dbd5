"""Cages by systemd-nspawn, for production: each a unit `hive-cage@<name>.service` and a machine of machined's.

    lifecycle -> systemd -> hive-cage (root) becomes systemd-nspawn -> the cage's init -> the program

Lifecycle has no rights of its own here. It writes a plan, asks systemd to start the unit (a polkit rule allows just
that), and reads back from systemd and the kernel whether the cage is what it was to be. What has to be root is
deploy/systemd/hive-cage, which believes nothing in the plan. The unit outlives us; its record lets us find it again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from libhive import faults
from libhive.clock import now_ms
from libhive.doorway import make_doors
from libhive.names import AgentName
from libhive.paths import Paths, make_private
from libhive.problems import Conflict
from libhive.spec import Limits
from services.lifecycle import logbook
from services.lifecycle.cages import directories, kernel, limits, seccomp
from services.lifecycle.cages.cgroups import Group
from services.lifecycle.cages.keeper import (
    POLL_SECONDS,
    Ended,
    Record,
    Running,
    read_record,
    write_record,
)
from services.lifecycle.cages.plan import Inside, Plan, environment
from services.lifecycle.cages.units import Units, unit_of

AGENT_UID = 1000
"""Of the program, in its cage."""
UIDS_PER_CAGE = 65_536
PLAN_FILE = "plan.json"
FAMILIES = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX")
INIT = "hive-init"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
CGROUPS = Path("/sys/fs/cgroup")
JOURNAL_SECONDS_MAX = 10.0
POLL_SECONDS_MAX = 0.05
CHECK_SECONDS_MAX = 10.0
NSPAWN_SAYS = "Trying to halt container."
"""When it is asked to end."""
KILLED = 2
"""CLD_KILLED, in systemd's ExecMainCode."""
OUT_OF_MEMORY = "hive-init: out of memory"
"""What the cage's init says (libhive/harness/enter.py): only it can see that, before the cage's control group is gone."""


class Nspawn:
    kind = "nspawn"

    def __init__(self, paths: Paths) -> None:
        self.paths, self.units = paths, Units()

    def check(self) -> None:
        if not Path("/run/systemd/system").is_dir():
            raise Conflict(
                "this host was not booted by systemd, which nspawn cages need", "HIVE_CAGE=bubblewrap"
            )
        for program in ("systemd-nspawn", "machinectl"):
            if shutil.which(program) is None:
                raise Conflict(f"{program} is not installed", "sudo apt-get install systemd-container")
        seccomp.program(platform.machine())
        show = ["systemctl", "show", "--property=LoadState", "--value", "hive-cage@check.service"]
        said = subprocess.run(show, capture_output=True, text=True, timeout=CHECK_SECONDS_MAX, check=False)
        if said.stdout.strip() != "loaded":
            raise Conflict("the unit hive-cage@.service is not installed", "sudo make install")

    def create(self, plan: Plan) -> None:
        make_private(plan.run.parent, 0o711)
        make_private(plan.run, 0o711)
        make_doors(plan.doors, plan.uid)
        _make_state(plan.state)
        order = msgspec.json.encode(plan_file(plan, seccomp.program(platform.machine())))
        _write(plan.run / PLAN_FILE, order)

    async def start(self, plan: Plan) -> Running:
        unit = unit_of(plan.name)
        await self.end(plan.name)
        await self.units.limit(unit, properties(plan.spec.limits))
        began = now_ms()
        try:
            return await self._begun(plan, unit, began)
        except BaseException:
            await self.end(plan.name)
            raise

    async def _begun(self, plan: Plan, unit: str, began: int) -> Running:
        await self.units.hold(unit)
        with contextlib.suppress(TimeoutError):
            await self.units.start(unit, START_SECONDS_MAX)
        faults.reach("lifecycle.spawned")
        known = await self.units.properties(unit)
        keeper = kernel.Process.open(known["MainPID"]) if known["MainPID"] else None
        if keeper is None or known["ActiveState"] != "active":
            why = (
                self._why(plan.name) or f"systemd says `{known['Result']}`, status {known['ExecMainStatus']}"
            )
            raise Conflict(f"the cage did not start: {why}", f"journalctl -u {unit}")
        record = Record(
            kind=self.kind,
            name=plan.name,
            generation=plan.generation,
            revision=plan.revision,
            uid=plan.uid,
            started_ms=began,
            keeper=keeper.identity,
            groups=memory_groups(known["ControlGroup"]),
            limits=plan.spec.limits,
        )
        write_record(plan.run, record)
        faults.reach("lifecycle.recorded")
        cage = Running(record=record, run=plan.run, log=plan.log, keeper=keeper)
        await self._until_program_runs(cage)
        self._take_controls(cage, known)
        return cage

    async def stop(self, cage: Running, grace_seconds: float) -> None:
        name = AgentName(cage.record.name)
        try:
            await self.units.stop(unit_of(name), grace_seconds)
        except TimeoutError:
            await self.units.kill(unit_of(name))
        await self.kill(cage)

    async def kill(self, cage: Running) -> None:
        name = AgentName(cage.record.name)
        await self.units.kill(unit_of(name))
        await self.ended(cage)
        await self.end(name)
        cage.close()

    def status(self, cage: Running) -> Ended | None:
        return cage.outcome or (Ended(-1, "") if cage.keeper.ended else None)

    async def ended(self, cage: Running) -> Ended:
        """Until systemd has put everything away that was the cage's."""
        if not cage.over.is_set():
            await cage.keeper.wait()
            known = await self._until_put_away(AgentName(cage.record.name), cage.keeper.pid)
            if not cage.over.is_set():
                cage.outcome = self._outcome(cage, known)
                cage.over.set()
        assert cage.outcome is not None
        return cage.outcome

    def look(self, cage: Running) -> bool:
        before = cage.memory_kills
        cage.memory_kills = max(before, limits.kills_for_memory(cage.record.groups))
        return cage.memory_kills > before

    async def adopt(self, name: AgentName) -> Running | None:
        record = read_record(self.paths.cage(name))
        known = await self.units.properties(unit_of(name))
        keeper = kernel.Process.reopen(record.keeper) if record and record.kind == self.kind else None
        if record is None or keeper is None or known["MainPID"] != keeper.pid:
            await self.end(name)
            return None
        run = self.paths.cage(name)
        cage = Running(record=record, run=run, log=logbook.path(self.paths, name), keeper=keeper)
        await self.units.hold(unit_of(name))
        try:
            if not self._find(cage):
                raise Conflict("the cage was not yet up")
            self._take_controls(cage, known)
        except Conflict:
            await self.kill(cage)
            return None
        return cage

    async def destroy(self, name: AgentName) -> None:
        """The doors are each service's own to remove, and the page's directory has gone with the cage."""
        await asyncio.to_thread(directories.clear, self.paths.cage(name))

    def log(self, name: AgentName, lines: int) -> str:
        """From the journal; what systemd itself says of the unit is in it."""
        return _journal(name, lines)

    async def end(self, name: AgentName) -> None:
        """Whatever there is of it, is no more; returns when it is gone."""
        unit = unit_of(name)
        try:
            await self.units.stop(unit, STOP_SECONDS_MAX)
        except TimeoutError:
            await self.units.kill(unit)
            await self.units.stop(unit, STOP_SECONDS_MAX)
        await self.units.forget(unit)
        await self.units.let_go(unit)

    # ---- what systemd does for us

    async def _until_put_away(self, name: AgentName, pid: int) -> Mapping[str, Any]:
        pause = POLL_SECONDS
        async with asyncio.timeout(STOP_SECONDS_MAX):
            while True:
                known = await self.units.properties(unit_of(name))
                if known["ActiveState"] in ("inactive", "failed") or known["MainPID"] not in (0, pid):
                    return known
                await asyncio.sleep(pause)
                # each time longer: thirty that end at once leave systemd the time to end them
                pause = min(2 * pause, POLL_SECONDS_MAX)

    def _outcome(self, cage: Running, known: Mapping[str, Any]) -> Ended:
        code = known["ExecMainStatus"] + (128 if known["ExecMainCode"] == KILLED else 0)
        words = self._why(AgentName(cage.record.name))
        reason = limits.out_of_memory(cage.record.limits) if code == 137 and words == OUT_OF_MEMORY else ""
        return Ended(code if known["ExecMainCode"] else -1, words, reason)

    def _why(self, name: AgentName) -> str:
        """The last that the cage itself said, or hive-cage, or nspawn."""
        said = _journal(
            name, 20, f"SYSLOG_IDENTIFIER=hive-cage-{name}"
        ).splitlines()  # without systemd's own words
        return logbook.last_line_of("\n".join(line for line in said if not line.startswith(NSPAWN_SAYS)))

    # ---- what the kernel says

    async def _until_program_runs(self, cage: Running) -> None:
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not self._find(cage):
                    if cage.keeper.ended:
                        why = self._why(AgentName(cage.record.name))
                        raise Conflict(f"the cage did not start: {why or 'it said nothing'}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise Conflict(f"the cage did not start its program within {START_SECONDS_MAX:g} s") from None

    def _find(self, cage: Running) -> bool:
        """The program is the one child of the cage's init, which is the one child of nspawn."""
        for leader in kernel.children(cage.keeper.pid):
            if INIT in kernel.command_line(leader):
                for pid in kernel.children(leader):
                    if kernel.command_name(pid) not in ("sh", "env"):
                        cage.init = cage.init or kernel.Process.open(leader)
                        cage.program = pid
                        return cage.init is not None
        return False

    def _take_controls(self, cage: Running, known: Mapping[str, Any]) -> None:
        controls = {**of_kernel(cage), **of_systemd(known), **of_limits(known, cage.record.limits)}
        missing = [control for control, holds in sorted(controls.items()) if not holds]
        if missing and not cage.keeper.ended:
            raise Conflict(f"the cage did not get the control `{'`, `'.join(missing)}` and was not started")
        cage.controls = tuple(sorted(controls))


def plan_file(plan: Plan, filter: bytes) -> dict[str, Any]:
    """What hive-cage is told. It has no path in it: hive-cage knows them."""
    return {
        "version": 1,
        "name": plan.name,
        "generation": plan.generation,
        "uid_base": plan.uid - AGENT_UID,
        "root": _root_key(plan),
        "claude": plan.claude is not None,
        "environment": environment(plan, Inside()),
        "program": list(plan.program),
        "seccomp": base64.b64encode(filter).decode(),
        "files": directories.ETC
        | {"hive/spec.json": msgspec.json.format(msgspec.json.encode(plan.spec)).decode()},
    }


def _root_key(plan: Plan) -> str:
    """The name of the directory that the builder has made it in: <state>/roots/<key>/tree."""
    tree = plan.nix.parent if plan.nix else plan.root
    return tree.parent.name if tree else ""


def properties(wanted: Limits) -> dict[str, int]:
    """As systemd calls them."""
    return {
        "MemoryMax": wanted.memory_mb << 20,
        "TasksMax": wanted.tasks,
        "CPUQuotaPerSecUSec": wanted.cpu_percent * 10_000,
    }


def of_kernel(cage: Running) -> dict[str, bool]:
    """Only what the kernel shows of another user's processes, which all of this is."""
    pid, status, uid = cage.program, kernel.status(cage.program), cage.record.uid
    root = kernel.mount(pid, "/")
    return {
        "no-capabilities": all(
            int(status.get(f"Cap{which}", "1"), 16) == 0 for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")
        ),
        "no-network": kernel.interfaces(pid) == ["lo"],
        "no-new-privileges": status.get("NoNewPrivs") == "1",
        "own-mounts": root.source.endswith(f"/hive-cage/{cage.record.name}/root"),
        "own-page": kernel.mount(pid, Inside().page).source == "/",
        "own-processes": len(status.get("NSpid", "").split()) >= 2,
        "own-users": kernel.users(pid) == [(0, uid - AGENT_UID, UIDS_PER_CAGE)],
        "read-only-doors": "ro" in kernel.mount(pid, Inside().doors).options,
        "read-only-root": "ro" in root.options,
        "seccomp": status.get("Seccomp") == "2",  # by `hive-init`, which does not become one without it
        "uid": set(status.get("Uid", "").split()) == {str(uid)},
    }


def of_systemd(known: Mapping[str, Any]) -> dict[str, bool]:
    allowed, families = known["RestrictAddressFamilies"]
    return {
        "address-families": allowed and sorted(families) == list(FAMILIES),
        "ends-whole": known["KillMode"] == "mixed" and known["SendSIGKILL"] and known["Delegate"],
        "own-slice": known["Slice"] == "hive-cages.slice",
    }


def of_limits(known: Mapping[str, Any], wanted: Limits) -> dict[str, bool]:
    """Both what systemd means to enforce and what the kernel has: a host may lack a controller, and systemd says nothing."""
    group, settings = known["ControlGroup"].strip("/"), properties(wanted)
    found = {}
    for control, setting, version_2, version_1 in (
        ("cpu", "CPUQuotaPerSecUSec", "cpu.max", "cpu/{}/cpu.cfs_quota_us"),
        ("memory", "MemoryMax", "memory.max", "memory/{}/memory.limit_in_bytes"),
        ("tasks", "TasksMax", "pids.max", "pids/{}/pids.max"),
    ):
        kind, kernels = _of_group(group, version_2, version_1)
        found[f"{control}:{kind}"] = known[setting] == settings[setting] and kernels
    return found


def _of_group(group: str, version_2: str, version_1: str) -> tuple[str, bool]:
    """By which version of control groups, and whether there is a limit at all."""
    for kind, file in (
        ("cgroup2", CGROUPS / group / version_2),
        ("cgroup1", CGROUPS / version_1.format(group)),
    ):
        with contextlib.suppress(OSError):
            return kind, file.read_text().split()[0] not in ("max", "-1", str(2**63 - 4096))
    return "none", False


def memory_groups(group: str) -> list[Group]:
    """Where the kernel counts what it ended for want of memory."""
    places = ((2, CGROUPS / group.strip("/")), (1, CGROUPS / "memory" / group.strip("/")))
    files = {2: "memory.events", 1: "memory.oom_control"}
    return [
        Group(path=str(place), version=version, limits=["memory"])
        for version, place in places
        if (place / files[version]).exists()
    ]


def _make_state(state: Path) -> None:
    """On disk it is ours, so that it can be saved and purged without root; in its cage it is the agent's."""
    state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.mkdir(mode=0o700, exist_ok=True)
    if (owner := state.stat(follow_symlinks=False).st_uid) != os.geteuid():
        raise Conflict(
            f"{state} belongs to user {owner}, and not to hive-lifecycle",
            f"give it over with: sudo chown -R -h {os.geteuid()}:{os.getegid()} {state}",
        )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    temporary.rename(path)


def _journal(name: AgentName, lines: int, *matches: str) -> str:
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}"]
    # by the unit in any case: an identifier is what anybody says of himself
    command += [f"--unit={unit_of(name)}", *matches]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=JOURNAL_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout
