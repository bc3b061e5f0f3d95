"""The ground of every room: code that knows nothing of models, data or inference.

In: ``package`` (the version, and the names that a room offers), ``checks`` (arguments and shapes at public boundaries),
``fit_options`` (the options of a fit, which the command line reads before torch is there), ``registry`` (components by
name, plug-ins of other packages), ``seed`` and ``row_noise`` (random numbers), ``adam``, ``operators`` and
``onednn`` (torch's operators watched, counted, replaced), ``torch_internals`` and ``pyro_internals`` (all private names
of theirs), ``process`` and ``signals`` (threads, memory, launchers, Ctrl-C), and ``text``.
Out: the package's exceptions, which stand below in :mod:`probvae.errors`, and files, which are :mod:`probvae.storage`.
There is no single door: each file is imported by its name. A component family begins at
:class:`~probvae.foundation.registry.Registered`.
"""
