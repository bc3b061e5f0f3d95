"""The diagnostics for a model and a guide that were written by hand in Pyro."""

from torch import Tensor

from probvae.diagnostics.diagnose import Diagnosis, Progress, diagnose
from probvae.inference.pair import VAE
from probvae.inference.programs.program_pair import model_and_guide
from probvae.inference.programs.program_runs import Program


def program_vae(model: Program, guide: Program, x: Tensor) -> VAE:
    r"""Any Pyro model and amortised guide with local latent sites, as a VAE: what takes a VAE takes the result.

    ``model(x)`` and ``guide(x)`` are callables for data ``x`` (N, ...), where a row is a datum. Each has one
    ``pyro.plate`` of size ``x.shape[0]`` at dim -1, and all its sites in it: in both the same latent ones, in the model
    those that observe the columns of x. Parameters are ``pyro.param``, ``pyro.module`` or modules of your own; they are
    used as they are, and the parameter store is left as it was. Put networks with dropout or batch normalisation into
    evaluation mode first.

    z (N, d) is the latent sites side by side, in the model's order; one with a bounded support is seen in unconstrained
    coordinates. Weights of ``poutine.scale`` and of subsampling plates are no part of p. The VAE cannot be trained or
    saved; its closed forms are those that can be read from a program: the guide's where it has one normal site, none of
    the posterior.

    Raises :class:`~probvae.errors.ArgumentError` where a latent site is global, discrete or in a sequential plate,
    where plates have another size, where p(z) or p(x|z) reads x, and where a run fails.

    >>> vae = VAE.example()  # its parts are Pyro programs, too
    >>> program_vae(vae.model, vae.guide, torch.zeros(5, 3)).guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    return VAE(*model_and_guide(model, guide, x))


def diagnose_program(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    truth: str = "auto",
    num_simulations: int | None = None,
    num_draws: int | None = None,
    quick: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """:func:`~probvae.diagnostics.diagnose.diagnose` for a Pyro model and guide that you wrote yourself.

    ``x`` is (N, ...). See :func:`program_vae` for what the two callables must be, and ``diagnose`` for the options and
    the result. Its sections need no more than log p(x, z), draws of q_x(z) with their density, and draws of (z, x), but
    for these:

    - the ledger splits its gap into the family's part and the encoder's only for a guide with one normal site;
    - ``truth="exact"`` needs a closed form, which a program does not show; with d <= 2 quadrature takes its place,
      above that annealing.

    Raises what :func:`program_vae` and ``diagnose`` raise.

    >>> vae = VAE.example()
    >>> diagnose_program(vae.model, vae.guide, torch.zeros(5, 3), quick=True).status
    'fail'
    """
    return diagnose(
        program_vae(model, guide, x),
        x.flatten(1),
        truth=truth,
        num_simulations=num_simulations,
        num_draws=num_draws,
        quick=quick,
        seed=seed,
        progress=progress,
    )
