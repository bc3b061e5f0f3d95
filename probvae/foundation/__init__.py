"""The ground of every room: code that knows nothing of models, data or inference.

In: ``checks`` (arguments and shapes at public boundaries), ``registry`` (components by name, plug-ins of other
packages), ``exports`` (the names that a room offers), ``seed`` (random numbers that leave the caller's alone),
``operators`` and ``onednn`` (torch's operators watched, counted, replaced), ``process`` and ``signals`` (threads,
memory, launchers, Ctrl-C), ``text`` (strangers' names made printable) and ``arviz_import``.
Out: the package's exceptions, which stand below in :mod:`probvae.errors`, and files, which are :mod:`probvae.storage`.
There is no single door: each file is imported by its name. A component family begins at
:class:`~probvae.foundation.registry.Registered`.
"""
