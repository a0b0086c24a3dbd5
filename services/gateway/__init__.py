"""The gateway: one login for all cages, the way to the model, and each agent's way out to the network.

Owns: the model credential (`<state>/gateway/credential.json`, 0600), what each agent has used and where it has connected
to (`<state>/gateway/gateway.sqlite`), and the doors `gateway.sock` and `proxy.sock` of every agent. A cage has no network
and no key; its harness's forwarder speaks the Messages API through the one door, and the gateway puts the real credential
on the request. Without a credential the rehearsal model answers. The other is for the tools of the agent.

    doors.py       one HTTP server per agent on <run>/agents/<name>/gateway.sock; keeps in step with the broker's mailboxes
    front.py       what every request goes through: is it one we serve, who answers it, what is counted
    exchange.py    one request of a cage and its answer, under the caps
    forward.py     to the upstream and back, streaming both ways
    metering.py    reads the usage out of an answer that streams past
    rules.py       routes, headers, errors: decided without touching the world
    credential.py  the file; secret.py the value, which does not show itself
    egress/        the proxy on `proxy.sock`: what an agent may reach besides the model, and what it did
    rehearsal/     the scripted model: api.py speaks, reading.py reads, player.py plays what rules.py says

Called by: hive-admin and the dashboard (login, logout, status) and every cage (HTTP). Calls: the broker (who has a
mailbox, and as which user its cage runs) and lifecycle (what each agent may reach).

It passes a request's body on as it is: server-side tools of the API (web search, URL sources, remote MCP servers) are
thus reachable for an agent, with what the credential's owner allows.
"""
