"""The updater: makes each cage run the newest approved configuration, without cutting a turn, or puts it
back.

Owns `<state>/updater/updater.sqlite`, the journal of deploys and purges. It answers on the bus (`Rebuild`, `Deploys`,
`PurgeAgent`, `Purges`), has no door, and calls approvals (what is approved; what has become of it), the broker (hold an
agent's mail; is it between two turns; is its harness well) and lifecycle (build what it needs, while it goes on working;
run this). A purge tells all of them, and the gateway, to let go of an agent.

    approved -> resolved -> built -> drained -> switched -> healthy -> recorded | failed

Each step may be done twice without harm: its commands carry ids made from the deploy and the step. What must
be known after a kill is in the journal before it is acted upon, so a deploy goes on from where it was.

    service.py    the verbs, and where deploys come from       journey.py    one deploy, step by step
    rules.py      is it quiet, is it well, what to go back to  store.py      the journal
    purge.py      an agent that goes for ever, step by step
"""
