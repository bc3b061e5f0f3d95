"""A variational autoencoder written by hand in Pyro, for `probvae diagnose-program models/by_hand.py:digits`.

Nothing of probvae stands in it: a model, a guide, and a few lines that train them. It takes some seconds.
"""

import pyro
import torch
from pyro import distributions as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn

NOISE = 0.2  # the standard deviation of p(x|z)


class ByHand(nn.Module):
    """p(z) = N(0, I), p(x|z) = N(f(z), 0.04 I), and q_x(z) = N(g(x), h(x)) with a diagonal h, for 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64))
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def digits(num_steps: int = 1500) -> tuple:
    """The programs, trained on four fifths of the digits, and the last fifth."""
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    train, held_out = x[:1437], x[1437:]
    program = ByHand()
    svi = pyro.infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 3e-3}), pyro.infer.Trace_ELBO())
    for _ in range(num_steps):
        svi.step(train[torch.randint(len(train), (128,))])
    return program.model, program.guide, held_out
