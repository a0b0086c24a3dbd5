"""hive-lifecycle: which agents there are, what is wanted of each, and the cages they live in.

Owns      <state>/lifecycle/lifecycle.sqlite (the registry), <state>/logs/agents/, <state>/logs/builds/,
          <state>/roots/, <run>/cages/, and it makes the
          directories <run>/agents/<name>, <run>/pages/<name> and <state>/agents/<name> with their owners.
Serves    the bus (`lifecycle`), and the door lifecycle.sock of the manager alone.
Called by updater (`Apply`), dashboard, hive-admin, and the manager through its door.
Calls     broker: an agent's mailbox is opened and closed, the manager and the operator hear of failures. What the
          broker has to be told is kept on disk until it answered (`courier.py`), so it may be away.
          The harness in a cage, by its page's socket, for `Exec` (`execute.py`).

A verb writes what is wanted (`store.py`, decided in `rules.py`), the reconciler makes it so (`reconciler.py`) with one
kind of cage (`cages/`) and, for a cage that is not to have the host's own /usr, one of the `builders/`. Cages outlive this
process: it may be killed at any instant, and the next one adopts them. A build ends with it, and is begun again. To
end the cages when no service is left, run `python -m services.lifecycle.sweep`.

As a unit of systemd it needs nothing special: its cages are units of their own there.
"""
