"""
``twistd -n txbits``: the server from a command line or a TOML file.

This package assembles and does not work. Options and file give a
:class:`~txbits.service.settings.Configuration`; :mod:`txbits.service.maker` builds from
it what an embedder builds in three lines, and gives it a life: start, listen, stop.
"""
