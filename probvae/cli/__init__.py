"""The command line: a thin shell over the package, which parses, calls, prints and ends with an exit code.

In: ``main`` (subcommands, errors, exit codes), one ``*_command`` a subcommand, the options that several of them share
(``run_options``), tables and remarks on a terminal (``output``), and the words of the library's messages (``flags``).
Out: mathematics, and work that Python could want too: that is a function of :mod:`probvae.applications`,
:mod:`probvae.experiments` or :mod:`probvae.report`. Nothing here imports torch before it is needed.
The door is :func:`main`. To add a command: one new file here and one line in ``main.COMMANDS``.
"""

from probvae.cli.main import main

__all__ = ["main"]
