"""Keeping one SQLite file whole: is it, what to put in its place when it is not, and what is lost by that.

`check` looks, `snapshots` makes and finds copies, `recovery` decides at a start, `salvage` names what is missing,
`reserve` keeps the little room that a start on a full disk needs. Nothing here knows what a table means.
"""
