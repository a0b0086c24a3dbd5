"""The dashboard: the operator's browser, and every agent's own page.

Owns      browser sessions and one-time login links (its only table); nothing else. What the pages show is a
          copy of what the other services say, thrown away and fetched again at any doubt (`watch.py`).
Sockets   http://127.0.0.1:7000, one more port per agent (8000 the manager, 8100-8999 the others), and on the
          bus `dashboard.sock`, which knows one verb: make a login link.
Calls     every service, as the operator, when she presses a button; and a cage's `page.sock`, to read.
Called by hive-admin, for the link.

Where to look:

    guard.py      who may ask at all: Host, Origin, session, body size; in front of every route
    sessions.py   links and sessions            store.py  their table
    routes.py     every URL, in two tables      actions.py  what each button does
    reads.py      every GET                     files.py    the front end's files
    watch.py      listens to the services -> snapshot.py keeps what they said -> feed.py sends it to browsers
    rules.py      how several services' words become one state, and an event one line
    views.py      the JSON of docs/dashboard-api.md
    pages.py      the agents' ports             cagepage.py  reading a cage's page.sock without trusting it
    static/       the front end: plain ES modules, no build step
"""
