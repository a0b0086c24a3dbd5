"""The gateway: one login for all cages, and the way to the model.

Owns: the model credential (`<state>/gateway/credential.json`, 0600), what each agent has used
(`<state>/gateway/gateway.sqlite`), and the door `gateway.sock` of every agent. A cage has no network and no key; its
harness's forwarder speaks the Messages API through that door, and the gateway puts the real credential on the request.
Without a credential the rehearsal model answers.

    doors.py       one HTTP server per agent on <run>/agents/<name>/gateway.sock; keeps in step with the broker's mailboxes
    front.py       what every request goes through: is it one we serve, who answers it, what is counted
    exchange.py    one request of a cage and its answer, under the caps
    forward.py     to the upstream and back, streaming both ways
    metering.py    reads the usage out of an answer that streams past
    rules.py       routes, headers, errors: decided without touching the world
    credential.py  the file; secret.py the value, which does not show itself
    rehearsal/     the scripted model: api.py speaks, reading.py reads, player.py plays what rules.py says

Called by: hive-admin and the dashboard (login, logout, status) and every cage (HTTP). Calls: the broker (who has a
mailbox, and as which user its cage runs).

It passes a request's body on as it is: server-side tools of the API (web search, URL sources, remote MCP servers) are
thus reachable for an agent, with what the credential's owner allows.
"""
