"""Fits for test_processes.py, which runs them in one process and, by ``torchrun`` on this file, in two."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import probvae
from probvae.errors import ProbvaeError
from probvae.inference import (
    DiagonalGuide,
    FreeGuide,
    FullCovarianceGuide,
    Guide,
    IWAEObjective,
    MixtureGuide,
    MLPEncoder,
    MMDObjective,
    Objective,
    fit,
)
from probvae.inference.objectives import ELBOObjective
from probvae.inference.training.processes import Processes, process_group
from probvae.inference.training.union_noise import find_layouts
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    Likelihood,
    MLPDecoder,
    StandardNormalPrior,
)

DIM, NUM_DATA = 6, 33
Case = tuple[probvae.VAE, Tensor, dict[str, Any]]


def data() -> Tensor:
    return torch.rand(NUM_DATA, DIM, generator=torch.Generator().manual_seed(3)).double()


def make(
    likelihood: Likelihood | None = None,
    guide: Callable[[], Guide] | None = None,
    dropout: float = 0.0,
    labels: int = 0,
) -> probvae.VAE:
    torch.manual_seed(11)
    likelihood = likelihood or GaussianLikelihood(DIM, variance="learned")
    decoder = MLPDecoder(2 + labels, likelihood.num_outputs, hidden=(6,), dropout=dropout)
    covariates = LabelCovariates(list(range(labels))) if labels else None
    model = LatentModel(StandardNormalPrior(2), decoder, likelihood, covariates)
    q = guide() if guide else DiagonalGuide(MLPEncoder(DIM + labels, hidden=(6,)), 2)
    return probvae.VAE(model, q).double()


def conditional() -> Case:
    return make(labels=3), data(), {"y": torch.arange(NUM_DATA) % 3, "validation": 0.2}


# a process's rows of a minibatch of 16: as many as there are particles, latents, components, units of each layer
SHARE = 8
SHARED = sorted(name for name, kind in Objective.registry.items() if kind.is_mean_over_data)


def of_share(name: str, num_particles: int) -> Callable[[], Case]:
    def made() -> Case:
        torch.manual_seed(11)
        decoder = MLPDecoder(SHARE, SHARE, hidden=(SHARE,), dropout=0.2)
        model = LatentModel(StandardNormalPrior(SHARE), decoder, BernoulliLikelihood(SHARE))
        encoder = MLPEncoder(SHARE, hidden=(SHARE,), dropout=0.2)
        guide = MixtureGuide(encoder, SHARE, SHARE) if name in ("elbo", "iwae") else DiagonalGuide(encoder, SHARE)
        x = torch.rand(NUM_DATA, SHARE, generator=torch.Generator().manual_seed(3)).double()
        objective = Objective.registry[name](num_particles=num_particles)
        return probvae.VAE(model, guide).double(), x, {"objective": objective, "binarization": "fresh"}

    return made


# the last minibatch of 33 data in sixteens has a single one: the second process has nothing to do there
CASES: dict[str, Callable[[], Case]] = {
    "default": lambda: (make(), data(), {"validation": 0.3}),
    "optimal c": lambda: (make(GaussianLikelihood(DIM, variance="optimal")), data(), {"kl_warmup": 2}),
    "dropout": lambda: (make(dropout=0.2), data(), {}),
    "c of each datum": lambda: (make(GaussianLikelihood(DIM, variance="per-datum")), data(), {"schedule": "cosine"}),
    "clipped": lambda: (make(), data(), {"gradient_clip": 0.1, "learning_rate": 0.1}),
    "patience": lambda: (make(), data(), {"patience": 1, "validation": data()[:9] + 1.0, "learning_rate": 1.0}),
    "full, iwae": lambda: (
        make(guide=lambda: FullCovarianceGuide(MLPEncoder(DIM, hidden=(6,)), 2)),
        data(),
        {"objective": IWAEObjective(num_particles=3)},
    ),
    "mixture": lambda: (make(guide=lambda: MixtureGuide(MLPEncoder(DIM, hidden=(6,)), 2)), data(), {}),
    "free": lambda: (make(guide=lambda: FreeGuide(2, DIM, NUM_DATA).start_from(data())), data(), {}),
    "binarised": lambda: (make(BernoulliLikelihood(DIM)), data(), {"binarization": "fresh", "validation": 0.2}),
    "conditional": conditional,
    **{f"{name}, K = {number}": of_share(name, number) for name in SHARED for number in (1, SHARE)},
}


def fitted(case: Case, epochs: int = 3, **more: Any) -> dict[str, Any]:
    """What came of it: the weights, and the history without the clock."""
    vae, x, options = case
    result = fit(
        vae,
        x,
        **(
            {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-2, "schedule": "constant", "progress": False}
            | options
            | more
        ),
    )
    history = [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]
    ends = {"stopped": result.stopped, "best": result.best_epoch, "path": result.path}
    return {"state": vae.state_dict(), "history": history, **ends}


def gradients(processes: Processes, x: Tensor) -> list[Tensor]:
    """Of the loss of one minibatch, in float32."""
    vae = make().float()
    parameters, own = list(vae.parameters()), processes.my_slice(len(x))
    torch.manual_seed(5)
    layouts = None
    if processes.size > 1:
        layouts = find_layouts(lambda n, k: ELBOObjective(k).step_loss(vae.model, vae.guide, x[:n]), 1)
        torch.manual_seed(5)
    with processes.noise(len(x), layouts):
        step = ELBOObjective().step_loss(vae.model, vae.guide, x[own])
    found = torch.autograd.grad(step.loss, parameters)
    step, total = processes.reduce(step, found, parameters, len(x[own]) / len(x))
    return [*(value.detach() for value in step), *(gradient for gradient in total if gradient is not None)]


class RefusingDecoder(nn.Module):
    """Numbers that no normal distribution takes, in one process, from the third epoch on."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.inner, self.rank, self.steps = MLPDecoder(2, DIM, hidden=(6,)), rank, 0

    def forward(self, z: Tensor) -> Tensor:
        self.steps += self.training
        out: Tensor = self.inner(z)
        return out * torch.nan if self.rank == 1 and self.steps > 2 * 2 else out


def refused(processes: Processes, most: int) -> Case:
    torch.manual_seed(11)
    model = LatentModel(StandardNormalPrior(2), RefusingDecoder(processes.rank), GaussianLikelihood(DIM))
    return (
        probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(6,)), 2)).double(),
        data(),
        {"max_skipped_steps": most},
    )


def unlike(processes: Processes) -> Case:
    return make(), data() + processes.rank, {}


# what processes cannot share
MISTAKES: dict[str, Callable[[Processes], Case]] = {
    "refused": lambda processes: refused(processes, 0),
    "refused twice": lambda processes: refused(processes, 2),
    "other data": unlike,
    "other learning rate": lambda processes: (make(), data(), {"learning_rate": 0.01 * (1 + processes.rank)}),
    "other patience": lambda processes: (make(), data(), {"patience": 2 + processes.rank, "validation": 0.2}),
    "other beta": lambda processes: (make(), data(), {"objective": ELBOObjective(beta=1.0 + processes.rank)}),
    "other c": lambda processes: (make(GaussianLikelihood(DIM, variance=1.0 + processes.rank)), data(), {}),
    "too small": lambda processes: (make(), data(), {"batch_size": 1}),
    "mmd": lambda processes: (make(), data(), {"objective": MMDObjective()}),
    "free bits": lambda processes: (make(), data(), {"objective": ELBOObjective(free_bits=0.1)}),
}


def mistaken(case: Case) -> dict[str, Any]:
    """The error, and the weights that it left."""
    try:
        return {"error": None, **fitted(case, epochs=4)}
    except ProbvaeError as error:
        return {"error": type(error).__name__, "message": str(error), "state": case[0].state_dict()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with process_group() as processes:
        done: dict[str, Any] = {name: fitted(case()) for name, case in CASES.items()}
        done["graph"] = {name: fitted(case(), compile="graph") for name, case in CASES.items()}
        done["written"] = fitted((make(), data(), {}), out=folder / f"run-{processes.rank}")
        done["gradients"] = gradients(processes, data().float())
        done["mistakes"] = {name: mistaken(case(processes)) for name, case in MISTAKES.items()}
    torch.save(done, folder / f"rank-{processes.rank}.pt")


def stall() -> None:
    """The second process goes to sleep, and the first is told to wait for two seconds only."""
    with process_group(timedelta(seconds=2)) as processes:
        processes.broadcast("awake")
        if processes.rank == 1:
            time.sleep(600)
        processes.broadcast("still awake")


if __name__ == "__main__":
    stall() if sys.argv[1] == "stall" else main(Path(sys.argv[1]))
