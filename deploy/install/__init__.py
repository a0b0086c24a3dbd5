"""`make install` and `make uninstall`: hyperhive as units of systemd, for Debian and Ubuntu. Standard library only.

`versions` is what lies under /opt/hyperhive, `files` what is put elsewhere and the record of it, `system` what is asked
of systemd; `__main__` puts them in order.
"""
