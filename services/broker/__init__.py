"""The broker: every mailbox, message, receipt, question and reminder of the hive.

It owns   <state>/broker/broker.sqlite, and who is connected (memory only: it is true only while it is true)
Sockets   bus/broker.sock, bus/broker.events; the door broker.sock of every agent with an open mailbox
Called by everybody
Calls     nobody: whatever else is down, mail is accepted and kept

A message is durable before it is answered. It goes stored -> offered -> seen -> acked, or to dead; each step is a row's
change in the same group commit as whatever caused it, and an event after it.

    service.py     one handler per message          rules.py   who may say what to whom, and when
    store.py       the tables                       mail.py    rows <-> what is said
    timers.py      reminders and deadlines come due presence.py  who is connected and what it is doing
"""
