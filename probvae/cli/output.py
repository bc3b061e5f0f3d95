"""Results on a terminal: tables, remarks, warnings."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probvae.cli.flags import in_flags
from probvae.errors import OutputError
from probvae.foundation.process import drop_output, launched_rank, output_fault
from probvae.foundation.text import printable

if TYPE_CHECKING:
    from probvae.diagnostics.diagnose import Diagnosis


def note(message: str | Text) -> None:
    """A remark, on stderr, if that can be written."""
    with suppress(OSError):
        Console(stderr=True, soft_wrap=True).print(
            plain(message) if isinstance(message, str) else message, highlight=False
        )


def warn(message: str) -> None:
    """A warning, on stderr."""
    note(Text.assemble(("warning: ", "yellow"), plain(message)))


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Show warnings of the block on stderr when it ends, because they would tear a progress bar.

    They are shown before an error too: a broken plug-in explains why its name is unknown.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for warning in caught if launched_rank() == 0 else ():
            warn(in_flags(str(warning.message)))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    caption: str | None = None,
    compact: bool = False,
) -> None:
    """One table on stdout, as wide as the terminal allows; a ``compact`` one has lines between its rows only."""
    narrow: dict[str, Any] = {"show_lines": True, "collapse_padding": True, "pad_edge": False, "box": box.HORIZONTALS}
    look = narrow if compact else {}
    under = None if caption is None else plain(caption, "table.caption")
    table = Table(title=plain(title, "bold"), title_justify="left", caption=under, caption_justify="left", **look)
    for number, column in enumerate(columns):
        justify: Any = "left" if number == 0 or (number == len(columns) - 1 and not compact) else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=compact and number > 0)
    for row in rows:
        table.add_row(*map(plain, row))
    _stdout().print(table)


def print_line(text: str) -> None:
    """One line on stdout."""
    _stdout().print(plain(text), highlight=False)


def print_summary(summary: Mapping[str, Any]) -> None:
    """The numbers of a fit."""
    held_out = f"{summary['num_held_out']} held-out data of {summary['data']}"
    print_table(held_out, ["", "value", "s.e.", "unit"], [*_bound_rows(summary), *_other_rows(summary)])
    print_gap(summary["gap"])
    print_line(f"run: {summary['run']}")


def print_gap(gap: Mapping[str, Any] | None) -> None:
    """The ledger of gaps, or why there is none."""
    if gap is None:
        return
    if "not_computed" in gap:
        print_line(f"posterior gap: not computed ({in_flags(gap['not_computed'])})")
        return
    lines = {
        "total": "total: log p(x) - ELBO = KL(q_x || p(z|x))",
        "approximation": "  approximation: a richer guide could win it",
        "amortisation": "  amortisation: a better encoder could win it",
    }
    rows = [(text, *_numbers(gap[name]), "nats per datum") for name, text in lines.items() if name in gap]
    error = f", to {gap['truth_error']:.1g} nats" if gap["truth_error"] else ""
    caption = f"log p(x) by {gap['truth']} ({gap['kind']}{error})"
    if "not_split" in gap:
        caption += f"; not split into family and encoder ({in_flags(gap['not_split'])})"
    elif gap["num_converged"] < gap["num_data"]:
        caption += f"; best guide found for {gap['num_converged']} of {gap['num_data']} data"
    print_table(f"posterior gap on {rows_told(gap)}", ["", "value", "s.e.", "unit"], rows, caption)


def rows_told(gap: Mapping[str, Any]) -> str:
    """How many data a ledger is of, and of how many.

    >>> rows_told({"num_data": 150, "num_there": 359}), rows_told({"num_data": 359, "num_there": 359})
    ('the first 150 of 359 data', '359 data')
    """
    there = gap.get("num_there", gap["num_data"])
    return f"{gap['num_data']} data" if there == gap["num_data"] else f"the first {gap['num_data']} of {there} data"


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Tell on stdout inside the block what is in ``folder`` already.

    Raises :class:`~probvae.errors.OutputError` where stdout cannot be written; a reader that has gone wants no more.
    """
    fault: OSError | None = None
    try:
        yield
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        fault = error
        drop_output()
    fault = fault or output_fault()
    if fault is not None:
        reason = fault.strerror or fault
        raise OutputError(f"standard output: cannot be written to ({reason}). All is done, and kept in {folder}.")


@contextmanager
def section_progress(wanted: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the sections, on stderr; nothing where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = ("diagnosis", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task("")
        yield lambda name, number, total: bar.update(task, completed=number, total=total, description=name)


def print_diagnosis(diagnosis: "Diagnosis", subject: str) -> None:
    """The verdicts, the worst first, and what to try next."""
    from probvae.report.page import SYMBOLS, answer, worst_first
    from probvae.report.tables import short_text

    rows = [
        (f"{SYMBOLS[v.status]} {v.status}", short_text(v.value), short_text(v.threshold), f"{v.name}: {v.message}")
        for v in worst_first(diagnosis.verdicts)
    ]
    print_line(answer(diagnosis.verdicts))
    print_table(subject, ["verdict", "value", "threshold", "check, and what it says"], rows)
    if diagnosis.advice:
        print_line("What to try next:")
    for number, sentence in enumerate(diagnosis.advice, start=1):
        print_line(f"{number}. {sentence}")


def squared_unit(scaling: str) -> str:
    """The unit of squared errors and of c, which are those of the data as they were scaled."""
    return {
        "unit": "squared units of x scaled to [0, 1]",
        "standardize": "squared standard deviations of x",
    }.get(scaling, "squared units of x")


def _bound_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    unit = "nats per datum"
    name = (
        "ELBO, a lower bound of log p(x)" if summary["is_bound"] else "-(cross-entropy + KL): no bound, no likelihood"
    )
    return [
        (name, *_numbers(summary["elbo"]), unit),
        ("  E log p(x|z)", *_numbers(summary["log_likelihood"]), unit),
        ("  KL(q_x(z) || p(z))", *_numbers(summary["kl"]), unit),
    ]


def _other_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    unit = squared_unit(summary.get("scaling", "none"))
    error = f"mean squared error of {summary['point'].replace('|z', '|z = E_q z')}"
    rows: list[tuple[str, ...]] = [(error, *_numbers(summary["reconstruction_error"]), unit)]
    if summary["variance"] is not None:
        rows.append(("c, the decoder variance", f"{summary['variance']:.5g}", "", unit))
        rows.append(("C = 1/(2c), the squared error's weight", f"{summary['squared_error_weight']:.4g}", "", ""))
    for name, value in summary["likelihood"].items():
        rows.append((f"{name} of the likelihood", f"{value:.5g}", "", ""))
    if "beta" in summary:
        rows.append(("beta, the KL's weight in training", f"{summary['beta']:g}", "", ""))
    if "equivalent_variance" in summary:
        rows.append(("  the ELBO of c' = beta c", f"{summary['equivalent_variance']:.5g}", "", unit))
    return [*rows, *_time_rows(summary)]


def _time_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The time of the fit, of its evaluation, and of the ledger where there was one, a line each."""
    parts = {
        f"time of the fit, {summary['epochs']} epochs": summary["fit_seconds"],
        "time of the evaluation": summary["evaluation_seconds"],
        "time of the ledger of gaps": summary["ledger_seconds"],
    }
    return [(name, f"{seconds:.1f}", "", "seconds") for name, seconds in parts.items() if seconds is not None]


def _numbers(estimate: Mapping[str, float | None]) -> tuple[str, str]:
    value, error = estimate["value"], estimate["standard_error"]
    return f"{value:.4f}", "-" if error is None else f"{error:.4f}"


def _stdout() -> Console:
    # A pipe has no width, and wrapped table cells would be worse than long lines
    return Console(width=None if sys.stdout.isatty() else 120, soft_wrap=False)


def plain(text: str, style: str = "") -> Text:
    """``text`` as it stands, because a console reads [red] in a string as a colour, and :smile: as a picture."""
    return Text(printable(text), style)
