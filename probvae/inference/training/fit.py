"""Stochastic variational inference."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from probvae.errors import ArgumentError, ProbvaeError, RunError
from probvae.foundation.fit_options import FitOptions, chosen, described
from probvae.foundation.process import local_rank, threads_for_step
from probvae.foundation.seed import isolated_seed
from probvae.inference.objectives import Objective, resolve_objective
from probvae.inference.pair import VAE
from probvae.inference.training.checkpoints import Checkpoint, Resumption, RunRecorder, newest_checkpoint
from probvae.inference.training.dataset_rows import labels_of
from probvae.inference.training.loop import FitResult, train
from probvae.inference.training.minibatches import Data
from probvae.inference.training.processes import Processes
from probvae.inference.training.state import StateListener
from probvae.inference.training.training_data import TrainingData, check_and_split
from probvae.storage.run_folder import Run


@described
def fit(
    vae: VAE,
    x: Data,
    *,
    y: Any = None,
    exposure: Any = None,
    objective: str | Objective = "elbo",
    options: FitOptions | None = None,
    progress: bool = True,
    out: str | Path | Run | None = None,
    resume: bool = False,
    **training: Any,
) -> FitResult:
    r"""Fit a VAE in place by stochastic variational inference with Adam.

    .. math:: \max_{f, g, h, c} \frac1N \sum_n \mathrm{ELBO}(x_n)

    The default objective is Pyro's ``Trace_ELBO``. A step's loss is the mean over its minibatch, so neither the
    bound that is reported nor the meaning of the learning rate depends on ``batch_size``. The gradient of an epoch's
    last minibatch, where it has fewer data, is weighted by their number over ``batch_size``: each datum counts alike,
    and an epoch's gradients add up to the gradient of the mean over all data.

    Where a process group of :mod:`torch.distributed` has been joined
    (:func:`~probvae.inference.training.processes.process_group`), its processes share every minibatch of
    ``batch_size`` data and give the result of one process, up to rounding; only the first of them writes and shows
    anything.

    Parameters
    ----------
    vae
        A :class:`~probvae.VAE`; it ends on the device it was on.
    x
        (N, D), converted to the dtype of the parameters: a floating-point tensor, an array, a DataFrame (pandas,
        polars), a masked array (its masked entries are missing), or data larger than memory, as a memory-mapped
        array, :class:`~probvae.data.RowsOnDisk` or a torch ``Dataset`` of items x or (x, y).
        :func:`~probvae.inference.training.training_data.as_rows` says what is read when.
    y
        Covariates of a conditional model, labels (N,) or numbers (N, C): see :meth:`~probvae.VAE.given`. The y of a
        ``Dataset`` by default.
    exposure
        (N,) positive numbers that multiply the rates of a likelihood of counts.
    objective
        A name (``probvae list objectives``) or an :class:`~probvae.inference.Objective`.
    options
        A :class:`~probvae.inference.FitOptions`. Each of its fields is a keyword too, which goes above it:
    {options}
    progress
        Whether to show on stderr how far the fit has come.
    out
        A folder to write ``metrics.jsonl``, ``checkpoints/`` and ``model.safetensors`` to; it must not exist.
        Ctrl-C and SIGTERM then end the fit after the step, with all saved, by a
        :class:`~probvae.errors.FitInterruptedError`.
    resume
        Go on from the newest checkpoint in ``out``, with the data and options of the fit that was stopped: weights and
        records are then, bit for bit, the same as without the stop (on a CPU, with as many threads).

    ``validation`` takes data (M, D) too; ``patience`` needs it, and counts after the warm-up only. A step whose loss or
    gradient is not finite is skipped: nothing moves, and the history counts it. The fit ends with an error after more
    than ``max_skipped_steps`` in a row, or an epoch of them; fewer are told at the end, in a
    :class:`~probvae.errors.SkippedStepsWarning`. The paths of ``compile`` (``"auto"``, ``"graph"``: traced and never
    compiled, True: compiled, False: Pyro's handlers at every step) give the same numbers up to rounding. ``seed``
    starts random numbers of the fit's own; the caller's generators are left untouched.

    Raises :class:`~probvae.errors.DataError` for data that do not fit the model, and
    :class:`~probvae.errors.NonFiniteLossError` when loss or gradient stays NaN or infinite, and
    :class:`~probvae.errors.ChangedDataError` when the file of a memory-mapped array changes: the weights are then those
    of the last good epoch; :class:`~probvae.errors.RankError` when another process of the group is
    lost. Source: Hoffman et al. (2013), "Stochastic Variational Inference"; Kingma and Welling (2014).

    >>> import torch, probvae
    >>> result = fit(probvae.VAE.example(), torch.randn(200, 3), epochs=2, progress=False)
    >>> [record["epoch"] for record in result.history]
    [1, 2]
    """
    options = chosen(options, training)
    objective, processes = resolve_objective(objective), Processes()
    processes.check_settings({**options.shared(), **_described(objective), **_parts_of(vae)})
    home, device = next(vae.parameters()).device, _resolve_device(options.device)
    if y is None and vae.model.covariates is not None:
        y = labels_of(x)
    conditioned = vae if y is None and exposure is None else vae.given(y, exposure)
    data = check_and_split(vae, conditioned, x, options, device)
    options = replace(options, batch_size=data.minibatches.batch_size)  # a small table is one minibatch
    folder = Run(out) if isinstance(out, str | Path) else out
    listener = _listener(vae, data, objective, options, folder, resume, processes)
    size = sum(parameter.numel() for parameter in vae.parameters())
    threads = threads_for_step(size, options.batch_size // processes.size)
    with isolated_seed(options.seed, device), threads, warnings.catch_warnings():
        # Pyro only warns of a NaN; the fit turns it into an error that says where it is
        warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
        vae.to(device)
        try:
            with isolated_seed(options.seed, device):
                processes.begin(vae.state_dict(), data.rows, objective, options.batch_size)
            with listener:
                return train(vae, data, objective, options, processes, listener, progress and processes.is_writer)
        finally:
            if folder is not None and folder is not out and processes.is_writer:
                folder.close()
            vae.train(False)
            vae.to(home)


def _listener(
    vae: VAE,
    data: TrainingData,
    objective: Objective,
    options: FitOptions,
    folder: Run | None,
    resume: bool,
    processes: Processes,
) -> StateListener:
    """Who hears of the fit's state: the run ``folder`` in the first process, and nobody else but to resume."""
    checkpoint = _checkpoint(folder, processes) if resume else None
    description = {
        **options.fixed(),
        "num_data": len(data.rows),
        **_described(objective),
        "dtype": str(data.rows.dtype),
    }
    if folder is None or not processes.is_writer:
        return Resumption(checkpoint, description)
    seconds, check = options.checkpoint_seconds, data.check_unchanged
    return RunRecorder(folder, vae.metadata(), description, seconds, resume, checkpoint, check)


def _described(objective: Objective) -> dict[str, Any]:
    return {"objective": {"name": objective.registered_name, **objective.arguments}}


def _parts_of(vae: VAE) -> dict[str, Any]:
    """The options of all components, nothing where a component of the user's own cannot say them."""
    try:
        return vae.components()
    except ProbvaeError:
        return {}


def _checkpoint(folder: Run | None, processes: Processes) -> Checkpoint | None:
    """The newest in ``folder``, the same in all processes; None where the fit was stopped before the first."""
    if folder is None:
        raise ArgumentError("resume: expected the folder of a run in out, got None. Give out, or leave out resume.")
    if processes.is_writer:
        folder.open()
    checkpoint = newest_checkpoint(folder.checkpoints)
    name = checkpoint and checkpoint.name
    processes.check_same(name, RunError, "checkpoint", "Give all of them the same run folder.")
    return checkpoint


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = torch.device(name)
    if resolved.type == "cuda" and resolved.index is None:
        resolved = torch.device("cuda", local_rank())  # torchrun gives each process of a machine a GPU of its own
    return resolved
