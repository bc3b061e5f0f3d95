"""The programs of the speed benchmark that run on this environment's PyTorch: by hand, with Pyro, and with probvae."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count, islice, pairwise
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent.parent))

from speed_networks import Batches, Guide, ImportanceWeightedLoss, Loss, Model, make_data, matrix_products
from speed_worker import Run, Workload, serve

import probvae
from probvae.foundation.fit_options import FitOptions
from probvae.foundation.process import threads_for_step
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.objectives import ELBOObjective, IWAEObjective, Objective
from probvae.inference.training.loop import Loop
from probvae.inference.training.training_data import check_and_split

LEARNING_RATE = 1e-3
_SECONDS_TO_CHOOSE = 0.05
_ROWS_AT_ONCE = 2000
# how many threads fit takes is its own decision, which holds until this process ends
_FOR_GOOD = ExitStack()


def eager(workload: Workload) -> Run:
    """PyTorch by hand, torch's Adam as it comes."""
    return _by_hand(workload, lambda loss: loss, fused=False)


def fused(workload: Workload) -> Run:
    """The same with the fused Adam."""
    return _by_hand(workload, lambda loss: loss, fused=True)


def compiled(workload: Workload) -> Run:
    """The same with the loss under torch.compile."""
    return _by_hand(workload, lambda loss: torch.compile(loss, fullgraph=True), fused=True)


def _by_hand(workload: Workload, prepared: Callable[[nn.Module], Callable[[Tensor], Tensor]], fused: bool) -> Run:
    loss, batches = (Loss if workload.num_draws == 1 else ImportanceWeightedLoss)(workload), Batches(workload)
    optimizer = torch.optim.Adam(loss.parameters(), lr=LEARNING_RATE, fused=fused)
    evaluate = prepared(loss)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            optimizer.zero_grad()
            evaluate(batches()).backward()
            optimizer.step()

    return run


def pyro_svi(workload: Workload) -> Run:
    """Pyro as its documentation writes it: SVI, Trace_ELBO, pyro.optim.Adam."""
    return _svi(workload, _pyro_objective(workload), Batches(workload))


def _pyro_objective(workload: Workload) -> pyro.infer.ELBO:
    if workload.num_draws == 1:
        return pyro.infer.Trace_ELBO()
    return pyro.infer.RenyiELBO(alpha=0, num_particles=workload.num_draws, vectorize_particles=True)


def pyro_jit(workload: Workload) -> Run:
    """Pyro with torch.jit.trace."""
    warnings.filterwarnings("ignore")
    return _svi(workload, pyro.infer.JitTrace_ELBO(ignore_jit_warnings=True), Batches(workload))


def _svi(workload: Workload, elbo: pyro.infer.ELBO, batches: Callable[[], Tensor]) -> Run:
    model, guide = Model(workload), Guide(workload)

    def stored_model(x: Tensor) -> None:
        pyro.module("model", model)
        model(x)

    def stored_guide(x: Tensor) -> None:
        pyro.module("guide", guide)
        guide(x)

    svi = pyro.infer.SVI(stored_model, stored_guide, pyro.optim.Adam({"lr": LEARNING_RATE}), elbo)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            svi.step(batches())

    return run


def pyro_example(workload: Workload) -> Run:
    """The structure of Pyro's VAE example: a DataLoader, and batches that are made on the way."""
    loader = DataLoader(TensorDataset(make_data(workload)), workload.batch_size, shuffle=True, drop_last=True)
    epochs = (rows for _ in iter(int, 1) for (rows,) in loader)
    return _svi(workload, pyro.infer.Trace_ELBO(), lambda: next(epochs))


def probvae_fit(way: str, compile: str | bool) -> Callable[[Workload], Run]:
    """The steps of `fit`, minibatches and checks included, by one of its ways: "pyro", "traced" or "compiled"."""

    def build(workload: Workload) -> Run:
        vae = _vae(workload)
        size = sum(parameter.numel() for parameter in vae.parameters())
        _FOR_GOOD.enter_context(threads_for_step(size, workload.batch_size))
        loop = _loop(vae, workload, compile)
        step, take = loop.stepper.step, loop.stepper.take
        if step.path != way:
            raise RuntimeError(f"fit took the {step.path} path: {step.reason}")
        batches = (batch for _ in count() for batch in loop.minibatches())

        def run(num_steps: int) -> None:
            for batch in islice(batches, num_steps):
                take(batch)

        return run

    return build


def _loop(vae: probvae.VAE, workload: Workload, compile: str | bool) -> Loop:
    """What `fit` makes before its first step."""
    x = make_data(workload)[: workload.num_batches * workload.batch_size]
    options = FitOptions(
        epochs=1000, batch_size=workload.batch_size, learning_rate=LEARNING_RATE, schedule="constant", compile=compile
    )
    loop = Loop(vae, check_and_split(vae, vae, x, options, x.device), _objective(workload), options)
    vae.train()
    loop.stepper.choose_step(loop.rows)
    return loop


def _vae(workload: Workload) -> probvae.VAE:
    d, dim, hidden = workload.latent_dim, workload.data_dim, tuple(workload.hidden)
    linear = not hidden
    decoder = probvae.LinearDecoder(d, dim) if linear else probvae.MLPDecoder(d, dim, hidden[::-1], "relu")
    encoder = probvae.LinearEncoder(dim) if linear else probvae.MLPEncoder(dim, hidden, "relu")
    bernoulli = workload.likelihood == "bernoulli"
    likelihood = probvae.BernoulliLikelihood(dim) if bernoulli else probvae.GaussianLikelihood(dim)
    guide = probvae.FullCovarianceGuide if workload.covariance == "full" else probvae.DiagonalGuide
    return probvae.VAE(probvae.LatentModel(probvae.StandardNormalPrior(d), decoder, likelihood), guide(encoder, d))


def _objective(workload: Workload) -> Objective:
    return ELBOObjective() if workload.num_draws == 1 else IWAEObjective(num_particles=workload.num_draws)


def products(workload: Workload) -> Run:
    """The matrix products of a step and nothing else, each by the faster of PyTorch's two routes."""
    chosen = [_fastest_product(*shape) for shape in matrix_products(workload)]

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            for product in chosen:
                product()

    return run


def evidence(workload: Workload) -> Run:
    """L_K of all data, K the workload's draws; a step is one call."""
    vae, x = _vae(workload).eval(), make_data(workload)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            importance_log_evidence(vae, x, workload.num_draws)

    return run


def evidence_products(workload: Workload) -> Run:
    """The decoder's products at K draws for all data, in chunks that stay in the cache."""
    widths = [workload.latent_dim, *reversed(workload.hidden), workload.data_dim]
    chosen = [_fastest_product(_ROWS_AT_ONCE, *layer) for layer in pairwise(widths)]
    num_chunks = workload.num_data * workload.num_draws // _ROWS_AT_ONCE

    def run(num_steps: int) -> None:
        for _ in range(num_steps * num_chunks):
            for product in chosen:
                product()

    return run


def _fastest_product(n: int, k: int, m: int) -> Callable[[], Tensor]:
    a, b, out = torch.randn(n, k), torch.randn(k, m), torch.empty(n, m)
    weight = b.T.contiguous()
    routes = (
        lambda: torch.mm(a, b, out=out),
        lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], ""),
    )
    return min(routes, key=_seconds_of)


def _seconds_of(function: Callable[[], object]) -> float:
    times = []
    end = time.perf_counter() + _SECONDS_TO_CHOOSE
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


PROGRAMS: dict[str, Callable[[Workload], Run]] = {
    "eager": eager,
    "fused": fused,
    "compiled": compiled,
    "pyro": pyro_svi,
    "pyro-jit": pyro_jit,
    "pyro-example": pyro_example,
    "probvae": probvae_fit("pyro", False),
    "probvae graph": probvae_fit("traced", "graph"),
    "probvae compiled": probvae_fit("compiled", True),
    "products": products,
    "evidence": evidence,
    "evidence products": evidence_products,
}

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    serve(PROGRAMS)
