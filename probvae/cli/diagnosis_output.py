"""How the sections of a diagnosis go by on a terminal, and what came out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probvae.diagnostics.diagnose import Diagnosis


@contextmanager
def section_progress(wanted: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the sections, on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = ("diagnosis", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task("")
        yield lambda name, number, total: bar.update(task, completed=number, total=total, description=name)


def print_diagnosis(diagnosis: "Diagnosis", subject: str) -> None:
    """The verdicts, the worst first, and what to try next."""
    from probvae.cli.output import print_line, print_table
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
