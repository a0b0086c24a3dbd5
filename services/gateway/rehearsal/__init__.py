"""The rehearsal model: a scripted stand-in for the Messages API, for a hive that has no credential yet.

It is pure and stateless: what it does next follows from the agent's name (known by the door) and the request's body
alone, so it plays on after a restart of anything.

    rules.py     what it plays: one readable list; what a rule does is a small generator (docs/rehearsal.md lists them)
    reading.py   what was asked: the mail of the current turn, the tools there are, the calls made so far
    player.py    plays the rule of each mail up to the first call that has no result yet
    packages.py  adds packages to an agent.toml and leaves the rest of it as it is
    api.py       says the step in the Messages API's words, streaming or whole
"""
