"""Real systemd in a container, for what only systemd can show: units, users, cages as units, a reboot.

    with Container() as container:            # a pristine Debian, booted, in about a second
        container.run("systemctl", "is-system-running")

What runs inside is a root built once from the host's own package sources (root.py) with an overlay of its own, and a
/var/lib on a real file system: an overlay cannot be idmapped, a state directory must be. The checkout is there read-only
under its own path, so that `CHECKOUT/.venv/bin/python` runs inside too; there is no network but loopback.

`python -m tests.booted [COMMAND...]` boots one by hand and runs the command, or a shell, in it.
"""
