"""hive-harness: the one program in each cage. It drives Claude Code for one agent.

Owns      the agent's turn loop, its tools, its transcript and its page; nothing that another agent could miss.
Speaks    through its doors: broker.sock (mail), gateway.sock (the model); the manager's also lifecycle.sock and
          approvals.sock. What an agent may do is which doors lie in its directory.
Listens   on the cage's loopback, for its own CLI only: the tools (mcp.py) and the way to the model (forward.py);
          and on page.sock, for the dashboard and lifecycle.

    __main__  settings  pid1      starting; being the first process of a cage
    harness                       start, serve, stop
    turns  turn                   the loop: mail -> prompt -> turn -> ack, and what to do when a turn fails
    policy  prompt  launch        pure: outcomes and what follows; the words the model reads; the launch line
    mailbox                       the lease on the agent's mail; acks that are kept until they come through
    cli  procs                    the long-lived `claude` process; what is left of one that died
    session  model                which conversation, which model: small files in /state
    transcript                    every event of the CLI, every turn, every debt to the broker, in one database
    tools  arguments              the tool table
    mcp  context                  serving it; what a tool knows of the turn that calls it
    page  status  execute         what the outside sees, and may do
    forward                       the way to the model

A mail is acknowledged when the turn that took it has ended well, and never before. Whatever dies in between, it is
offered again; what a repeated turn does again has the same command ids, so the hive does it once.
"""
