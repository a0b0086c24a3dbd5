"""python -m deploy.install install [--wheels DIR] [--claude FILE] | uninstall [--purge]; `make install` and `make uninstall`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from deploy.install import files, system, versions
from deploy.setup import setup

RUN, STATE = Path("/run/hyperhive"), Path("/var/lib/hyperhive")
LOG = Path("/var/log/hyperhive-install.log")


def main() -> int:
    given = _arguments()
    os.umask(0o022)
    try:
        _check_root()
        setup.LOG = LOG
        LOG.write_bytes(b"")
        if given.verb == "install":
            install(given.wheels, given.claude)
        else:
            uninstall(purge=given.purge)
    except setup.SetUpError as failure:
        setup.say(f"\n{given.verb} stopped: {failure.args[0]}\n  {failure.args[1]}")
        return 1
    except KeyboardInterrupt:
        setup.say(f"\n{given.verb} interrupted; running it again goes on from here")
        return 130
    return 0


def install(wheels: Path | None, claude: Path | None) -> None:
    """Until the last step but one nothing of a hive that runs is touched."""
    setup.check_python()
    system.check()
    setup.debian_packages(system.packages())
    version = versions.make(wheels, claude)
    with setup.progress("users, units and directories"):
        changed = files.put()
        system.make_users_and_directories()
    is_new = versions.use(version)
    with setup.progress("starting the services"):
        system.start(anew=is_new or bool(changed))
    versions.forget_old()
    setup.say(
        "\nhyperhive is installed and runs: systemctl status hyperhive.target\n"
        "  who may use it:  sudo adduser YOU hive-admin   (then log in anew)\n"
        "  the dashboard:   hive-admin link\n"
        "  is all well:     hive-admin doctor\n"
        f"  its settings:    {files.SETTINGS}\n"
        f"  its state:       {STATE}"
    )


def uninstall(*, purge: bool) -> None:
    if purge and sys.stdin.isatty():
        setup.say(
            f"This removes all mail, configuration and files of all agents in {STATE}. Type purge: ", end=""
        )
        if sys.stdin.readline().strip() != "purge":
            setup.say("nothing was removed")
            return
    with setup.progress("stopping the services and the cages"):
        system.stop()
    with setup.progress("removing the installation"):
        files.remove()
        system.forget()
        shutil.rmtree(versions.OPT, ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)
    if purge:
        with setup.progress("removing the state"):
            shutil.rmtree(STATE, ignore_errors=True)
            shutil.rmtree(files.SETTINGS.parent, ignore_errors=True)
            system.remove_users()
        LOG.unlink(missing_ok=True)
        return
    setup.say(
        f"\nThe state is kept in {STATE}, the settings in {files.SETTINGS.parent}, and the users that own them:\n"
        "  `make install` goes on from there; `make uninstall PURGE=yes` removes them for good"
    )


def _check_root() -> None:
    if os.geteuid() != 0:
        raise setup.SetUpError("this changes the whole machine, which only root can", "sudo make install")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy.install")
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_install = verbs.add_parser("install")
    of_install.add_argument(
        "--wheels", type=Path, help="a directory of wheels to take instead of the network"
    )
    of_install.add_argument("--claude", type=Path, help="a Claude Code binary to use where it lies")
    of_uninstall = verbs.add_parser("uninstall")
    of_uninstall.add_argument("--purge", action="store_true", help="the state, too")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
