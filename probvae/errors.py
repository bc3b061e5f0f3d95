"""The package's exceptions.

Each inherits :class:`ProbvaeError` and the built-in exception that fits, so that ``except ValueError``
keeps working. A message names the argument, what was expected, what came, and one way out.
"""

import difflib
from collections.abc import Iterable


class ProbvaeError(Exception):
    """Base class of every exception that the package raises on purpose."""


class ArgumentError(ProbvaeError, ValueError):
    """An argument has a value that is not allowed."""


class ShapeError(ArgumentError):
    """A tensor has another shape than was expected."""


class DataError(ArgumentError):
    """The data cannot be used as they are."""


class SupportError(DataError):
    """The data lie outside the likelihood's support."""


class ConfigError(ArgumentError):
    """A recipe, an option or a name is wrong."""


class UnknownNameError(ConfigError):
    """A name is in no registry, or a key in no recipe."""


class UnknownOptionError(UnknownNameError, TypeError):
    """A keyword that is no option of the function."""


class RunError(ProbvaeError, OSError):
    """A run folder cannot be read or written."""


class OutputError(ProbvaeError, OSError):
    """Standard output cannot be written; what was to be told is in the files of the command."""


class NotLinearGaussianError(ProbvaeError, TypeError):
    """The model has no closed-form posterior."""


class FitError(ProbvaeError, RuntimeError):
    """A fit failed; the last good state is kept."""


class NonFiniteLossError(FitError, ArithmeticError):
    """The loss became NaN or infinite."""


class NonFiniteError(ProbvaeError, ArithmeticError, ValueError):
    """Finite data overflow in the networks of a model or a guide."""


class ChangedDataError(FitError, DataError):
    """A file of data has changed while a fit was reading it; the last state before is kept."""


class RankError(FitError, ConnectionError):
    """A process of a distributed fit stopped, cannot be reached, or took another way than the others."""


class FitInterruptedError(KeyboardInterrupt):
    """A fit was stopped by Ctrl-C or SIGTERM after a step, and its state saved.

    Like its base class it is no ``Exception``: a loop over fits that goes on after errors ends here.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came while no fit had a state to save; ``signal_number`` is its number.

    The command line raises it, so that open files are closed as after Ctrl-C.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted.")
        self.signal_number = signal_number


class TraceError(ProbvaeError, RuntimeError):
    """A program cannot be traced: its structure may depend on data."""


class FloorWarning(UserWarning):
    """A learned variance sits on its floor: the likelihood has no finite maximum there."""


class DataWarning(UserWarning):
    """Data lose something on their way to the model: digits, or values beyond those of the training rows."""


class SkippedStepsWarning(UserWarning):
    """A fit left out some steps, because their loss or gradient was not finite."""


class PathWarning(UserWarning):
    """A fit cannot run without Pyro's handlers, or compiled, as it was asked to."""


class CheckpointWarning(UserWarning):
    """A checkpoint of a run is damaged, and the fit goes on from an older checkpoint."""


class PluginWarning(UserWarning):
    """A component of another package cannot be loaded."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not among ``known``, with the nearest known name suggested."""
    known = sorted(known)
    nearest = nearest_name(name, known)
    hint = f"Did you mean {nearest!r}?" if nearest else f"Choose one of: {', '.join(known)}."
    return UnknownNameError(f"unknown {what} {name!r}. {hint}")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` most likely means: by its words, by its meaning, by its spelling.

    >>> nearest_name("StandardNormalPrior", ["mixture", "standard-normal"])
    'standard-normal'
    >>> nearest_name("gmm", ["mixture", "standard-normal"]), nearest_name("training.lr", ["training.learning_rate"])
    ('mixture', 'training.learning_rate')
    >>> nearest_name("mixtrue", ["mixture", "standard-normal"])
    'mixture'
    """
    known = sorted(known)
    words = {_words(candidate): candidate for candidate in known}
    *tables, last = name.rsplit(".", 1)
    for meant in (last, *_MEANINGS.get(_words(last), ())):
        found = words.get(_words(".".join([*tables, meant])))
        if found is not None:
            return found
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


def _words(name: str) -> str:
    """The letters and digits alone, without the role that a class's name ends in."""
    letters = "".join(sign for sign in name.lower() if sign.isalnum())
    role = next((role for role in _ROLES if name.endswith(role.title()) and letters != role), "")
    return letters.removesuffix(role)


_ROLES = ("prior", "likelihood", "decoder", "encoder", "guide", "objective")
# Other words for a component, an option or a command, by their letters, with the likeliest meaning first
_MEANINGS: dict[str, tuple[str, ...]] = {
    "gaussian": ("normal", "standard-normal", "diagonal"),
    "normal": ("gaussian", "standard-normal", "diagonal"),
    "isotropic": ("standard-normal",),
    "gmm": ("mixture",),
    "mog": ("mixture",),
    "gaussianmixture": ("mixture",),
    "mixtureofgaussians": ("mixture",),
    "cauchy": ("student-t",),
    "t": ("student-t",),
    "uniform": ("uniform-hypercube",),
    "realnvp": ("flow",),
    "maf": ("flow",),
    "iaf": ("flow",),
    "nsf": ("flow",),
    "normalizingflow": ("flow",),
    "normalisingflow": ("flow",),
    "mse": ("gaussian",),
    "l2": ("gaussian",),
    "mae": ("laplace",),
    "l1": ("laplace",),
    "bce": ("bernoulli",),
    "binary": ("bernoulli",),
    "crossentropy": ("categorical", "bernoulli"),
    "softmax": ("categorical",),
    "multinomial": ("categorical",),
    "logistic": ("discretized-logistic",),
    "counts": ("poisson",),
    "gammapoisson": ("negative-binomial",),
    "nb": ("negative-binomial",),
    "cnn": ("conv",),
    "convolutional": ("conv",),
    "dense": ("mlp",),
    "fc": ("mlp",),
    "feedforward": ("mlp",),
    "affine": ("linear",),
    "meanfield": ("diagonal",),
    "full": ("full-covariance",),
    "fullrank": ("full-covariance",),
    "multivariatenormal": ("full-covariance",),
    "nonamortized": ("free",),
    "svi": ("free",),
    "semiamortised": ("semi-amortized",),
    "vae": ("elbo",),
    "kl": ("analytic-kl",),
    "importanceweighted": ("iwae",),
    "wae": ("mmd",),
    "infovae": ("mmd",),
    "stickingthelanding": ("stl",),
    "zscore": ("standardize",),
    "standard": ("standardize",),
    "standardise": ("standardize",),
    "minmax": ("unit",),
    "dynamic": ("fresh",),
    "stochastic": ("fresh",),
    "static": ("fixed",),
    "diag": ("diagonal",),
    "lr": ("learning_rate",),
    "stepsize": ("learning_rate",),
    "iterations": ("epochs",),
    "steps": ("epochs",),
    "bs": ("batch_size",),
    "latents": ("latent_dim",),
    "latentsize": ("latent_dim",),
    "zdim": ("latent_dim",),
    "k": ("num_particles",),
    "klweight": ("beta",),
    "warmup": ("kl_warmup",),
    "earlystopping": ("patience",),
    "randomstate": ("seed",),
    "units": ("hidden",),
    "layers": ("hidden",),
    "dataset": ("data",),
    "output": ("out",),
    "gpu": ("cuda",),
    "train": ("fit",),
    "evaluate": ("report", "gap"),
    "diagnose": ("report", "diagnose-program"),
    "generate": ("sample",),
    "decode": ("reconstruct",),
    "embed": ("encode",),
    "transform": ("encode",),
    "fill": ("impute",),
    "sweep": ("compare",),
}
