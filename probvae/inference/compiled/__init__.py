"""Training steps that run Pyro's handlers once: the operators are written down, and run without them from then on."""

from probvae.foundation.adam import Adam as Adam
