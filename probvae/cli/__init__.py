"""The command line: a thin shell over the package. No mathematics, and no torch before it is needed."""

from probvae.cli.main import main

__all__ = ["main"]
