"""The entry point: subcommands by name, errors as messages, exit codes."""

import io
import signal
import sys
import time
from contextlib import nullcontext
from importlib import import_module

import click

from probvae.cli.flags import in_flags
from probvae.errors import (
    FitError,
    FitInterruptedError,
    ProbvaeError,
    RankError,
    RunError,
    TerminatedError,
    nearest_name,
    unknown_name,
)
from probvae.foundation.package import __version__
from probvae.foundation.process import keep_freed_memory, launched_rank, local_rank, num_launched, wait_briefly
from probvae.foundation.signals import first_signal, terminate
from probvae.foundation.text import printable

COMMANDS = {
    "fit": "Fit a VAE and write a run folder.",
    "gap": "Say how wrong a run's posterior is, and why, in nats.",
    "report": "Say whether a run's posterior can be trusted: a page with verdicts and figures.",
    "diagnose-program": "Diagnose the posterior of a Pyro model and guide that you wrote.",
    "compare": "Compare runs, or fit all combinations of options, with paired differences.",
    "list": "Say what priors, likelihoods, guides, ... there are.",
    "sample": "Draw new data from a fitted model.",
    "reconstruct": "Show data beside what the model makes of them.",
    "impute": "Fill missing entries with draws and intervals.",
    "encode": "Write the posterior mean and scale of each datum.",
}
FAILED, MISTAKE = 1, 2
# Seconds that one process of several waits for another to say what is wrong
PATIENCE = 2.0
# Pyro hangs a table of all sites on an error that comes from within a program
_SHAPES = "Trace Shapes:"
_LONGEST_MESSAGE = 1000  # characters
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


class LazyGroup(click.Group):
    """A group whose subcommands live in modules that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    # The command that runs, whose options its errors are about
    chosen: click.Command | None = None

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"probvae.cli.{name.replace('-', '_')}_command").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(str(unknown_name("command", args[0], COMMANDS)), ctx)
        name, self.chosen, rest = super().resolve_command(ctx, args)
        return name, self.chosen, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The help lines stand in COMMANDS, so that `probvae --help` imports no subcommand
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="probvae")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Fit a variational autoencoder as a Bayesian model.

    `probvae fit` without arguments fits Rocca's VAE to handwritten digits.
    """
    if num_launched() > 1 and ctx.invoked_subcommand != "fit":
        raise click.UsageError(
            f"torchrun: expected `probvae fit`, which processes can share, got {ctx.invoked_subcommand!r} in each of "
            f"{num_launched()} processes. Run it without torchrun."
        )


def main() -> None:
    """Run the command line: exit code 2 for a mistake in usage, data or recipe, 1 for a run that failed."""
    keep_freed_memory()
    wait_briefly()
    try:
        # The launcher of several processes waits for the processes that it ends, so they end at once
        with nullcontext() if num_launched() > 1 else first_signal(terminate, signal.SIGTERM):
            sys.exit(group.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        _let_others_speak(error)
        _suggest_option(error)
        text = io.StringIO()
        error.show(text)
        print(readable(text.getvalue()), end="", file=sys.stderr)
        sys.exit(MISTAKE)
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of every KeyboardInterrupt, after a new line; some versions do not say from which one
        cause = error.__context__
        told = cause if isinstance(cause, FitInterruptedError | TerminatedError) else KeyboardInterrupt("interrupted.")
        _complain(told)
        sys.exit(128 + getattr(told, "signal_number", signal.SIGINT))
    except ProbvaeError as error:
        _complain(error)
        sys.exit(FAILED if isinstance(error, FitError) else MISTAKE)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; Python would complain once more at exit
        sys.exit(FAILED)
    except OSError as error:
        _complain(RunError(f"{error.filename}: cannot be used ({error.strerror or error}). Choose another path."))
        sys.exit(MISTAKE)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _complain(
            FitError(f"not enough memory ({error}). Ask for less: --batch-size, --num-particles, --hidden, --num-data.")
        )
        sys.exit(FAILED)


def _suggest_option(error: click.ClickException) -> None:
    """Put the option whose name means the same into click's own message, which knows similar spellings only."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        options = [text for parameter in error.ctx.command.params for text in parameter.opts if text[:2] == "--"]
        near = nearest_name(error.option_name.removeprefix("--"), [text.removeprefix("--") for text in options])
        error.possibilities = [f"--{near}"] if near else error.possibilities


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch raises a plain RuntimeError when memory runs out
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _complain(error: BaseException) -> None:
    _let_others_speak(error)
    rank = launched_rank()
    message = in_flags(str(error).split(_SHAPES)[0].rstrip(), group.chosen)
    text = readable(f"probvae: rank {rank}: {message}" if rank else f"probvae: {message}")
    print(
        text.replace("\n", "\\n"), file=sys.stderr
    )  # the message is one line, although a file's name may hold a line break


def readable(message: str) -> str:
    r"""``message`` as a terminal can show it: control characters are escaped, a long text loses its middle.

    Names of files and columns stand in messages, and a stranger may have chosen them.

    >>> print(readable("probvae: \x1b[2Jx.csv: there is no such file."))
    probvae: \x1b[2Jx.csv: there is no such file.
    """
    if len(message) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        message = f"{message[:half]} [...] {message[-half:]}"
    return printable(message)


def _let_others_speak(error: BaseException) -> None:
    """Wait, unless this process should be the one to tell: the launcher ends all others as soon as one has gone.

    If all processes make the same mistake, the first tells. A process that is lost knows more than those that miss it.
    """
    time.sleep(PATIENCE * ((local_rank() > 0) + 2 * isinstance(error, RankError)))
