"""What every hyperhive process shares, floor by floor (each may import only what is below it).

admin harness embedded testing    programs, and the test kit
web                               HTTP servers: the dashboard's, the gateway's, an agent's page
clients  daemon                   calling a service; running one
link  doorway                     ZeroMQ between services; unix streams for cages
wire                              bytes <-> messages
spec  messages                    what an agent is; what is said
sqlite                            one database: who waits for which commit
transactions  redo                what a commit does; the log of what SQLite gets later
integrity  paths                  each a floor of its own
answers names clock logs tasks systemd faults packages release
problems
"""
