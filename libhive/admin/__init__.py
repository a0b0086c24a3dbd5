"""hive-admin: the operator's whole protocol from a terminal.

    __main__   parse, run, exit code
    arguments  names, ids and numbers, checked where they come in
    session    what a command is given: the clients, where to print, whom to ask
    commands   every command in alphabetical order
    overview   status and agents: looking at the whole hive
    events     what has happened, and what happens
    agents     spawn start stop restart rebuild destroy purge logs exec
    mail       send inbox answer
    receipts   message retry drop
    history    search retention
    proposals  proposals proposal approve deny
    roots      roots: what cages have for their /usr
    reminders  remind reminders cancel-reminder
    access     login logout link
    standing   what lifecycle adds to a command about an agent: it is stopped, or destroyed
    garbage    gc: what is left over
    doctor     what is wrong with this machine, and the line that mends it
    render     what a person sees; the only module that knows rich
    times      instants as a person reads them

A command's function returns its exit code: 0 done, 1 refused, 2 usage, 3 a service is unavailable.
"""
