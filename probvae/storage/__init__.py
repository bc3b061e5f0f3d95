"""Everything on disk: files replaced whole, tensors without pickle, run folders, and one door for untrusted input.

In: ``files`` (write to a temporary name, flush, rename; several files at once with ``staged``), ``temporary`` (folders
with a mark of ours: nothing else is ever removed), ``tensor_files`` (named tensors and text as safetensors),
``run_folder`` (the folder of a run and its lock) and ``untrusted`` (every check of a file that somebody else may have
made: kind, size, links, format).
Out: what the files mean. The pair as a file is :mod:`probvae.inference.model_file`, a recipe is
:mod:`probvae.experiments.recipe`, the user's data are :mod:`probvae.data`.
The door is :class:`~probvae.storage.run_folder.Run`; whoever reads a file from a run goes through
:mod:`probvae.storage.untrusted`.
"""
