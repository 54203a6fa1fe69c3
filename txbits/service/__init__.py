"""
``twistd -n txbits``: the server, from a command line or a TOML file.

Options and file become a :class:`~txbits.service.settings.Configuration`, from which
:mod:`txbits.service.maker` builds what an embedder builds in three lines.
"""
