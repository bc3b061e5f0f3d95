"""A program in, a step out: training steps that run Pyro's handlers once and repeat torch's operators from then on.

The door is :func:`~probvae.inference.compiled.choose_step.choose_step`, which gives a
:class:`~probvae.inference.compiled.step_classes.Step`: through Pyro's handlers, as a traced graph of ``torch.fx``, or
compiled by torch's inductor. :class:`~probvae.inference.compiled.compiled_step.CompiledStep` is the door for programs
that are no VAE.

In this room: writing a program's operators down, making the graph smaller, checking a step against Pyro's, compiling it
among other processes. Not in this room: minibatches, schedules and skipped steps (``training``), Adam, oneDNN and
torch's private names (``foundation``), and what a loss is (``objectives``). ``docs/compiled.md`` explains the room in
five minutes.
"""

from probvae.foundation.adam import Adam as Adam
