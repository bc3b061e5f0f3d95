"""The entry point: subcommands by name, errors as messages, exit codes."""

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module

import click

from probvae.cli.flags import in_flags
from probvae.errors import (
    ConfigError,
    FitError,
    FitInterruptedError,
    OutputError,
    ProbvaeError,
    RankError,
    RunError,
    TerminatedError,
    nearest_name,
    unknown_name,
)
from probvae.foundation.package import __version__
from probvae.foundation.process import (
    check_address_space,
    drop_output,
    keep_freed_memory,
    launched_rank,
    local_rank,
    num_launched,
    output_fault,
    prepare_streams,
    tell,
    wait_briefly,
)
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
_KEPT = "Files that the command has written are whole."
_OUT_OF_MEMORY = (
    *("can't allocate memory", "out of memory", "Cannot allocate memory", "bad_alloc", "can't start new thread"),
    "failed to map segment",  # the linker, of a library
)


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
    prepare_streams()
    if "MPLBACKEND" in os.environ:
        os.environ["MPLBACKEND"] = (
            "agg"  # the figures go into files, and a window that is not there is no reason to end
        )
    try:
        check_address_space()
        # The launcher of several processes waits for the processes that it ends, so they end at once
        with nullcontext() if num_launched() > 1 else first_signal(terminate, signal.SIGTERM):
            code = group.main(standalone_mode=False) or 0
            fault = output_fault()
            if fault is not None:
                raise OutputError(f"standard output: cannot be written to ({fault.strerror}). {_KEPT}")
            sys.exit(code)
    except click.ClickException as error:
        _let_others_speak(error)
        _suggest_option(error)
        text = io.StringIO()
        error.show(text)
        tell(readable(text.getvalue()), end="")
        sys.exit(MISTAKE)
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of every KeyboardInterrupt, after a new line; some versions do not say from which one
        cause = error.__context__
        told = cause if isinstance(cause, FitInterruptedError | TerminatedError) else KeyboardInterrupt("interrupted.")
        _complain(told)
        sys.exit(128 + getattr(told, "signal_number", signal.SIGINT))
    except ProbvaeError as error:
        _complain(error)
        sys.exit(FAILED if isinstance(error, FitError | OutputError) else MISTAKE)
    except BrokenPipeError:
        drop_output()  # the reader of our output has gone
        sys.exit(FAILED)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        sys.exit(_explained(error))


def _explained(error: OSError | MemoryError | RuntimeError | ImportError) -> int:
    """Tell of an error of the system's, and give the exit code; an error of another kind is raised again."""
    if _is_out_of_memory(error):
        reason = f" ({error})" if str(error) else ""
        fix = "Ask for less (--batch-size, --num-particles, --hidden, --num-data), or allow more (ulimit -v)."
        _tell(f"not enough memory{reason}. {fix}")  # to find the options' names would take memory
        return FAILED
    if not isinstance(error, OSError):
        raise error
    if error.filename is None:  # a stream
        drop_output()
        _complain(OutputError(f"standard output: cannot be written to ({error.strerror or error}). {_KEPT}"))
        return FAILED
    _complain(RunError(f"{error.filename}: cannot be used ({error.strerror or error}). Choose another path."))
    return MISTAKE


def _suggest_option(error: click.ClickException) -> None:
    """Put the option whose name means the same into click's own message, which knows similar spellings only."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        options = [text for parameter in error.ctx.command.params for text in parameter.opts if text[:2] == "--"]
        near = nearest_name(error.option_name.removeprefix("--"), [text.removeprefix("--") for text in options])
        error.possibilities = [f"--{near}"] if near else error.possibilities


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch raises a plain RuntimeError when memory runs out
    is_of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or is_of_system or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _complain(error: BaseException) -> None:
    _let_others_speak(error)
    _tell(in_flags(str(error).split(_SHAPES)[0].rstrip(), group.chosen))


def _tell(message: str) -> None:
    rank = _number(launched_rank)
    text = readable(f"probvae: rank {rank}: {message}" if rank else f"probvae: {message}")
    tell(text.replace("\n", "\\n"))  # the message is one line, although a file's name may hold a line break


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
    time.sleep(PATIENCE * ((_number(local_rank) > 0) + 2 * isinstance(error, RankError)))


def _number(rank: Callable[[], int]) -> int:
    """A rank, 0 where the launcher's variables are what the message is about."""
    try:
        return rank()
    except ConfigError:
        return 0
