"""Each agent's way out to the network: a proxy on its `proxy.sock`, which lets through what its configuration allows.

The proxy looks names up itself, judges the addresses, and connects to an address that it has judged: a name that means
something else a moment later changes nothing. docs/egress.md says what is allowed when; every decision is written down.

    rules.py     what is let out, to which of the addresses; pure
    policies.py  what each agent may reach, as lifecycle said last, and what it used while its mode is `learn`
    names.py     names to addresses, in threads of their own
    doors.py     one listening socket per agent, the caps of each
    visit.py     one connection: head, decision, then bytes
    head.py      the first lines of a connection, by h11
    plain.py     a request for http:// that is not tunnelled
    pace.py      how fast one agent may go on, so that the others and the model's traffic have their turn
    book.py      what was decided: kept in memory for a second, then in the database
    store.py     its tables
"""
