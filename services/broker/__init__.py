"""The broker: every mailbox, message, receipt, question and reminder of the hive.

It owns   <state>/broker/broker.sqlite, and who is connected (memory only: it is true only while it is true)
Sockets   bus/broker.sock, bus/broker.events; the door broker.sock of every agent with an open mailbox
Called by everybody
Calls     nobody: whatever else is down, mail is accepted and kept

A message is durable before it is answered. It goes stored -> offered -> seen -> acked, or to dead or expired. Each step is
a row's change in some group commit, and an event; only that mail was handed out is written a few milliseconds late. Plain
sends and acknowledgements are in the redo log beside the file first, and in SQLite within a quarter of a second.

    service.py    which part answers what            core.py       what the parts share, and what follows from a change
    post.py       sending, receiving, leases         mailroom.py   the mail's rows      boxes.py   who waits, what is ready
    plain.py      what needs no transaction          posted.py     a message's rows and numbers
    mailboxes.py  who may write to whom, who is there              presence.py  what each harness says it is doing
    questions.py  asked once, answered once          budgets.py    runaway conversations are paused
    reminders.py  set, fire, cancel    agenda.py  their rows       recurrence.py  which firings are due
    search.py     looking back         finder.py, words.py  a search    indexer.py  the index    retention.py  the end
    timers.py     what comes due, and a clock that jumps           rules.py     who may say what to whom, and when
    store.py      the tables           mail.py    rows <-> what is said
"""
