"""The approvals: what every agent is configured to be, what somebody wants changed, and what the operator
decided.

Owns `<state>/config/<agent>.git` (bare, never seen by a cage) and `<state>/approvals/approvals.sqlite`. It
answers on the bus, and on `approvals.sock` in the manager's directory only; it calls the broker, to wake
whoever asked.

The repository is written first and the row that mentions it after: `main` is what is approved, and annotated
tags that are never moved tell the story of each proposal (`story.py`), each with a note of who, when, why and
by which command. Rows can be made again from tags, and are: whatever a crash left between the two, the next
start finishes.

    service.py    the verbs                        effect.py     what would be different, field by field
    desk.py       how a proposal moves on          diff.py       the exact change of the exact blobs
    rules.py      what is allowed when             review.py     both, and the digest an approval is bound to
    store.py      rows, and news not yet told      outbox.py     tells the broker, at least once
    repo.py       git objects, by dulwich          story.py      a proposal, and its tags
"""
