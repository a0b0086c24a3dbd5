"""What every hyperhive process shares, floor by floor (each may import only what is below it).

admin harness embedded testing    programs, and the test kit
web                               HTTP servers: the dashboard's, the gateway's, an agent's page
clients  daemon                   calling a service; running one
link  doorway                     ZeroMQ between services; unix streams for cages
wire                              bytes <-> messages
spec  messages                    what an agent is; what is said
names paths clock logs tasks sqlite systemd
problems
"""
