"""Proofs of the broker: is what it does, under load and over its own deaths, what a message broker may do?

1. `players` are agents behind their doors and the operator on the bus, who all work at once: they send, ask, answer, remind,
   receive, see, acknowledge, repeat themselves, take leases over, use old ones, break off, hold, retry and drop. Each
   draws what it does from a seed.
2. `history` keeps every call with its answer, in the one order in which their only driver saw them.
3. `world` lets a broker be born, killed (at any instant, or at a fault point) and born again, and in the end brings
   everything to rest. `nursery` gives birth by fork, which is ten times as fast as exec.
4. `model` holds the history, and the store that is left, against what may happen. What it calls a finding breaks a rule.
5. `planted` has bugs that somebody could write; a model that does not find each of them proves nothing.

HIVE_TEST_SEED draws the same calls and kills again. How they meet is up to the machine: a rare finding may take several runs.
"""
