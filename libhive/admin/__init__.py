"""hive-admin: the operator's whole protocol from a terminal.

    __main__   parse, run, exit code
    arguments  names, ids and numbers, checked where they come in
    session    what a command is given: the clients, where to print, whom to ask
    commands   every command in alphabetical order
    overview   status, events, doctor's siblings: looking at the whole hive
    agents     spawn start stop restart rebuild destroy logs exec
    mail       send inbox answer message
    proposals  proposals proposal approve deny
    access     login logout link
    doctor     what is wrong with this machine, and the line that mends it
    render     what a person sees; the only module that knows rich

A command's function returns its exit code: 0 done, 1 refused, 2 usage, 3 a service is unavailable.
"""
