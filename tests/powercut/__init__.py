"""Power cuts: does what the broker confirmed survive the loss of everything that was not yet on stable storage?

A killed process loses nothing that it has written: the kernel still has it. A power cut loses every write that no
fsync has covered, or only some of them, in any order, and tears others at a sector. No test can cut the power, so
this one computes what a cut would have left:

1. `record` runs the real broker under strace while agents (`workload`) work through their doors. Between its lives it
   is stopped once and killed once. The recording has every write, truncation, sync and change of a name in the store's
   directory, and every reply that left through a door, in their order. A reply that leaves the process *is* the
   confirmation; no clock is involved.
2. `disk` replays a recording up to a cut. What a sync covered is durable; of the rest any subset may have reached the
   disk, whole or torn at 512-byte sectors, and so may any subset of the names made or removed. `-shm` never survives.
3. `images` draws cuts and subsets from a seed, more of them around commits, checkpoints and new files, and writes each
   image as files; `state` opens it with SQLite, which recovers from the write-ahead log.
4. `judge` holds what it finds against the ledger of all commands: what was confirmed is there, exactly once; what a
   receipt said still holds; what belongs together is there whole or not at all; nothing is there that nobody said.

What is not modelled: a disk that lies about a sync, sectors that turn unreadable, and losing the directory
`<state>/broker` itself.

A store without durable commits must be caught, else the check proves nothing: `hooked` runs the same broker with
`synchronous=NORMAL` (confirmed messages are lost) and `OFF` (the database is corrupt). It also checkpoints far more
often than the product does, because that is where the database file itself is written.

`HIVE_TEST_SEED` chooses other cuts. A finding prints the cut, what survived it, and the line that builds that image
again from the recording, which pytest keeps: `python -m tests.powercut RECORDING SEED COUNT NUMBER`.
"""
