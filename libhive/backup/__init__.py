"""What keeps a service's database safe while it runs, and hands it out: served by `libhive.daemon` for every service.

`custodian` takes snapshots, finds damage and says so; `streams` answers `backup.*`; `trees` reads directories that an
agent may be changing under our eyes.
"""
