"""The version of the package, which pyproject.toml, run folders, model files and ArviZ data read here.

It is below every room: a room that imported it from ``probvae`` would import the table of all public names.
"""

__version__ = "0.2.0.dev0"
