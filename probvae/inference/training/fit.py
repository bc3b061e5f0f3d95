"""Stochastic variational inference."""

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from probvae.errors import ArgumentError, RunError
from probvae.foundation.checks import check_positive
from probvae.foundation.process import local_rank, threads_for_step
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.paths import check_compile
from probvae.inference.objectives import Objective, resolve_objective
from probvae.inference.pair import VAE
from probvae.inference.training.checkpoints import Checkpoint, newest_checkpoint
from probvae.inference.training.loop import FitResult, Trainer
from probvae.inference.training.minibatches import Data, labels_of
from probvae.inference.training.options import FitOptions, prepare
from probvae.inference.training.processes import Ranks
from probvae.storage.run_folder import Run


def fit(
    vae: VAE,
    x: Data,
    *,
    y: Any = None,
    exposure: Any = None,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    objective: str | Objective = "elbo",
    seed: int = 0,
    validation: Data | float | None = None,
    schedule: str = "constant",
    gradient_clip: float | None = None,
    patience: int | None = None,
    kl_warmup: int = 0,
    max_skipped_steps: int = 10,
    binarization: str = "none",
    compile: str | bool = "auto",
    device: str = "auto",
    progress: bool = True,
    out: str | Path | Run | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
) -> FitResult:
    r"""Fit a VAE in place by stochastic variational inference with Adam.

    .. math:: \max_{f, g, h, c} \frac1N \sum_n \mathrm{ELBO}(x_n)

    The default objective is Pyro's ``Trace_ELBO``. A step's loss is the mean over its minibatch, so neither the
    bound that is reported nor the meaning of the learning rate depends on ``batch_size``. The gradient of an epoch's
    last minibatch, where it has fewer data, is weighted by their number over ``batch_size``: each datum counts alike,
    and an epoch's gradients add up to that of the mean over all data.

    Where a process group of :mod:`torch.distributed` has been joined
    (:func:`~probvae.inference.distributed.process_group`), its processes share every minibatch of ``batch_size`` data
    and give the result of one process, up to rounding; only the first of them writes and shows anything.

    Parameters
    ----------
    vae
        A :class:`~probvae.VAE`; it ends on the device it was on.
    x
        (N, D), converted to the dtype of the parameters: a floating-point tensor, an array, or data larger than
        memory, as a memory-mapped array, :class:`~probvae.data.RowsOnDisk` or a torch ``Dataset`` of items x or
        (x, y). :func:`~probvae.inference.feeding.as_source` says what is read when.
    y
        Covariates of a conditional model, labels (N,) or numbers (N, C): see :meth:`~probvae.VAE.given`. The y of a
        ``Dataset`` by default.
    exposure
        (N,) positive numbers that multiply the rates of a likelihood of counts.
    objective
        A name (``probvae list objectives``) or an :class:`~probvae.inference.Objective`.
    validation
        Data (M, D), or the share of ``x`` to set aside. Needed for ``patience``.
    schedule
        ``"constant"`` or ``"cosine"``.
    gradient_clip
        The largest norm of the gradient of one step; None for no limit.
    patience
        Stop when the validation ELBO has not risen for this many epochs, and restore the best epoch's weights.
    kl_warmup
        Over so many epochs the KL's weight rises linearly to one (to ``beta``, where the objective has one); only
        then does ``patience`` begin to count.
    max_skipped_steps
        A step whose loss or gradient is not finite is skipped: nothing moves, and the history counts it. The fit ends
        with an error after more than so many in a row, or an epoch of them; what is skipped before is told at the end,
        in a :class:`~probvae.errors.SkippedStepsWarning`.
    binarization
        ``"fresh"``: draw x ~ Bernoulli(x) anew at every use (the validation data once).
    compile
        ``"auto"``: run the program's operators without Pyro's handlers where there are steps enough to be worth
        tracing it, and compiled where there are enough to be worth the compiler's seconds. ``"graph"``: traced, never
        compiled. True: compiled. False: Pyro's handlers at every step. The numbers agree to rounding.
    seed
        Of the fit's own random numbers; the caller's generators are left untouched.
    device
        ``"auto"`` (CUDA where there is one), or a torch device.
    out
        A folder to write ``metrics.jsonl``, ``checkpoints/`` and ``model.safetensors`` to; it must not exist.
        Ctrl-C and SIGTERM then end the fit after the step, with all saved, by a
        :class:`~probvae.errors.FitInterruptedError`.
    resume
        Go on from the newest checkpoint in ``out``, with the data and options of the fit that was stopped: weights and
        records are then, bit for bit, those of a fit that was not (on a CPU, with as many threads).
    checkpoint_seconds
        A checkpoint is written after every epoch, and within an epoch that takes longer than this.

    Raises :class:`~probvae.errors.DataError` for data that do not fit the model, and
    :class:`~probvae.errors.NonFiniteLossError` when loss or gradient stays NaN or infinite: the weights are then those
    of the last good epoch; :class:`~probvae.errors.RankError` when another process of the group is
    lost. Source: Hoffman et al. (2013), "Stochastic Variational Inference"; Kingma and Welling (2014).

    >>> import torch, probvae
    >>> result = fit(probvae.VAE.example(), torch.randn(200, 3), epochs=2, progress=False)
    >>> [record["epoch"] for record in result.history]
    [1, 2]
    """
    options = FitOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        gradient_clip=gradient_clip,
        patience=patience,
        kl_warmup=kl_warmup,
        max_skipped_steps=max_skipped_steps,
        binarization=binarization,
        seed=seed,
    )
    check_compile(compile)
    objective = resolve_objective(objective)
    home = next(vae.parameters()).device
    target = _resolve_device(device)
    if y is None and vae.model.covariates is not None:
        y = labels_of(x)
    given = vae if y is None and exposure is None else vae.given(y, exposure)
    data = prepare(vae, given, x, validation, options)
    check_positive(checkpoint_seconds, "checkpoint_seconds")
    ranks = Ranks()
    folder = Run(out) if isinstance(out, str | Path) else out
    checkpoint = _checkpoint(folder, ranks) if resume else None
    run = folder if ranks.is_writer else None
    size = sum(parameter.numel() for parameter in vae.parameters())
    with isolated_seed(seed, target), threads_for_step(size, batch_size // ranks.size), warnings.catch_warnings():
        # Pyro only warns of a NaN; the fit turns it into an error that says where it is
        warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
        vae.to(target)
        try:
            with isolated_seed(seed, target):
                ranks.begin(vae.state_dict(), data.x, objective, batch_size)
            trainer = Trainer(vae, data, target, objective, options, run, ranks)
            vae.train(False)
            with isolated_seed(seed, target):
                trainer.rehearse()
            vae.train()
            trainer.steps.choose_path(compile)
            vae.train(False)
            trainer.open_run(resume)
            with closing(trainer.steps.feeder):
                return trainer.run(progress and ranks.is_writer, checkpoint, checkpoint_seconds)
        finally:
            if run is not None and run is not out:
                run.close()
            vae.train(False)
            vae.to(home)


def _checkpoint(folder: Run | None, ranks: Ranks) -> Checkpoint | None:
    """The newest in ``folder``, the same in all processes; None where the fit was stopped before the first."""
    if folder is None:
        raise ArgumentError("resume: expected the folder of a run in out, got None. Give out, or leave out resume.")
    if ranks.is_writer:
        folder.open()
    checkpoint = newest_checkpoint(folder.checkpoints)
    ranks.check_same(checkpoint and checkpoint.name, RunError, "checkpoint", "Give all of them the same run folder.")
    return checkpoint


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
        if resolved.type == "cuda" and resolved.index is None:
            resolved = torch.device("cuda", local_rank())  # torchrun gives each process of a machine a GPU of its own
        torch.zeros(1, device=resolved).item()  # "meta" is a device too, without numbers
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device: {device!r} is not available here. Use device='cpu'.") from error
    return resolved
