"""The hive on one machine without systemd: what `make up` and `make down` run.

__main__    up | down
settings    where this hive is, and the environment its processes get
up          lock, clean up, start, wait until it is up, stay until told to stop
down        ends a hive that runs, or what a killed one left
stopping    the order in which everything ends; shared by the two
ready       waiting for services and the manager, with progress
program     the supervisor's configuration, as text
supervisor  supervisord itself, a little quicker
processes   finding and ending processes without mistaking one for another
"""
