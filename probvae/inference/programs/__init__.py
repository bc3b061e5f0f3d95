"""Any Pyro model and guide with local latents as a VAE, so that every diagnostic takes it.

In: the programs as prior, likelihood and guide (``program_pair``), their runs by Pyro's handlers (``program_runs``),
their sites and the reasons why a program cannot be read (``program_sites``), and programs from a user's file
(``program_file``).
Out: training, because a program trains itself; the report of a program (``probvae.diagnostics.program_diagnosis``).
The door is :func:`~probvae.program_vae`, by :func:`~probvae.inference.programs.program_pair.model_and_guide`.
"""
