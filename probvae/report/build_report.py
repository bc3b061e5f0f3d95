"""A report of a VAE: a page, the numbers as JSON, draws for ArviZ, and figures, from any VAE and rows of data."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics.convergence import TrainedOn
from probvae.diagnostics.diagnose import Diagnosis, diagnose
from probvae.diagnostics.verdicts import NotComputed
from probvae.errors import RunError, ShapeError
from probvae.experiments.run import environment_of
from probvae.foundation.checks import check_count
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.pair import VAE, check_data
from probvae.report.arviz import to_arviz
from probvae.report.drawing.figure_files import save_figure
from probvae.report.page import Page, PageSection, Picture, answer, render
from probvae.report.sections import all_sections
from probvae.report.sections.base import Illustration, Section, Subject
from probvae.report.tables import TableRow, as_json, grids, table_rows
from probvae.storage.files import staged, write_atomic, write_text
from probvae.storage.untrusted import read_run_json

Progress = Callable[[str, int, int], None]

MAX_DATA, QUICK_DATA = 500, 200
NUM_DRAWS, QUICK_DRAWS = 500, 100
# Sources of log p(x) that every model allows
_ALWAYS_ALLOWED = ("auto", "annealed", "importance")
FILES = ("report.html", "report.json", "posterior.nc")
# A larger SVG stands in the page as PNG, which a phone draws faster.
_LARGEST_SVG = 300_000
_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Options:
    """How much is computed, and how; ``num_data`` and ``num_draws`` are None for the defaults."""

    num_data: int | None = None
    num_draws: int | None = None
    truth: str = "auto"
    quick: bool = False
    seed: int = 0

    @property
    def most_data(self) -> int:
        """How many rows a report takes at most."""
        return self.num_data or (QUICK_DATA if self.quick else MAX_DATA)


@dataclass(frozen=True)
class Report:
    """The folder and the files of a report, a line about its ``subject``, and all that was found."""

    folder: Path
    files: tuple[Path, ...]
    num_figures: int
    subject: str
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Source:
    """The ``vae`` for the rows ``x`` (N, D), the same rows as ``data`` for readers, and where they come from.

    ``subject`` is the line about them in the page, ``about`` more rows for its last table, and ``trained_on`` what is
    known of the training.
    """

    vae: VAE
    x: Tensor
    data: Dataset
    title: str
    subject: str
    about: Mapping[str, str] = field(default_factory=dict)
    trained_on: TrainedOn | None = None


def subject_line(data: Dataset, latent_dim: int, num_there: int, kind: str) -> str:
    """How many of the ``num_there`` rows are in a report, and their size.

    >>> subject_line(Dataset(np.zeros((5, 3)), "toys"), 2, 8, "held-out data of toys")
    'the first 5 of 8 held-out data of toys, 3 features, 2 latents'
    """
    some = f"the first {data.num_data} of " if data.num_data < num_there else ""
    latents = "1 latent" if latent_dim == 1 else f"{latent_dim} latents"
    return f"{some}{num_there} {kind}, {data.data_dim} features, {latents}"


def report_rows(
    vae: VAE,
    x: Tensor,
    folder: Path,
    options: Options,
    labels: Sequence[Any] | np.ndarray | Tensor | None = None,
    feature_names: Sequence[str] | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> Report:
    """The report of the rows ``x`` (N, D) with ``labels`` (N,): see the help of ``probvae.report``."""
    check_data(vae, x)
    num_there = len(x)
    if options.num_data is not None:
        check_count(options.num_data, "num_data", most=num_there)
    data = _dataset(x, labels, feature_names, image_shape).take(slice(options.most_data))
    rows = slice(data.num_data)
    source = Source(
        vae.at(rows),
        x[rows],
        data,
        f"Posterior report: {folder.resolve().name}",
        subject_line(data, vae.model.latent_dim, num_there, "data"),
        {"Made by": "probvae.report"},
    )
    return write_report(source, options, folder)


def _dataset(
    x: Tensor,
    labels: Sequence[Any] | np.ndarray | Tensor | None,
    feature_names: Sequence[str] | None,
    image_shape: tuple[int, ...] | None,
) -> Dataset:
    num_data, data_dim = x.shape
    if image_shape is not None and (len(image_shape) not in (2, 3) or math.prod(image_shape) != data_dim):
        raise ShapeError(
            f"image_shape: expected (H, W), or with 1 or 3 channels, of {data_dim} entries, got {image_shape}. Leave "
            "it out for a table."
        )
    if feature_names is not None and len(feature_names) != data_dim:
        raise ShapeError(f"feature_names: expected {data_dim} names, got {len(feature_names)}. Name every column.")
    if labels is not None and len(labels) != num_data:
        raise ShapeError(f"labels: expected one for each of {num_data} rows, got {len(labels)}. Pass them all.")
    return Dataset(
        x.detach().cpu().numpy(),
        "x",
        None if labels is None else np.asanyarray(labels.cpu() if isinstance(labels, Tensor) else labels),
        image_shape,
        None if feature_names is None else tuple(str(name) for name in feature_names),
    )


def write_report(
    source: Source,
    options: Options,
    folder: Path,
    *,
    owned: bool = False,
    progress: Progress = lambda name, number, total: None,
) -> Report:
    """Diagnose the VAE of ``source`` and write report.html, report.json, posterior.nc and figures to ``folder``.

    All files are replaced at the end, or none. Unless the folder is ``owned`` (a run's), they replace an earlier report
    only.

    Raises :class:`~probvae.errors.RunError` where files would be replaced that no report wrote, and what
    :func:`~probvae.log_evidence` raises for a ``truth`` that the model does not allow.
    """
    start = time.perf_counter()
    if not owned:
        _check_ours(folder)
    if options.truth not in _ALWAYS_ALLOWED:
        log_evidence(source.vae.at(slice(1)), source.x[:1], options.truth)  # refused before minutes are spent
    with staged(folder) as stage:
        diagnosis = diagnose(
            source.vae,
            source.x,
            truth=options.truth,
            num_draws=options.num_draws,
            quick=options.quick,
            seed=options.seed,
            trained_on=source.trained_on,
            row_numbers=source.data.row_numbers.tolist(),
            progress=lambda name, number, total: progress(name, number, total + 1),
        )
        progress("figures", len(diagnosis.sections), len(diagnosis.sections) + 1)
        subject = Subject(source.vae, source.x, source.data, diagnosis.sections, options.quick, options.seed)
        sections = _in_order(diagnosis)
        shown = {section.name: _illustrations(section, subject) for section in sections}
        pictures = {name: [_saved(one, stage) for one in several] for name, several in shown.items()}
        _write_draws(subject, options, stage)
        page = Page(
            source.title,
            source.subject,
            diagnosis.status,
            diagnosis.verdicts,
            [_page_section(section, diagnosis, pictures[section.name]) for section in sections],
            diagnosis.advice,
            _about(source, options, time.perf_counter() - start),
            _check_names(sections),
        )
        write_text(stage / "report.html", render(page))
        write_text(stage / "report.json", _as_json(diagnosis, page, shown))
    num_figures = sum(map(len, shown.values()))
    return Report(folder, tuple(folder / name for name in FILES), num_figures, page.subject, diagnosis)


def _check_ours(folder: Path) -> None:
    """Raise where a file or a figure stands in the way, unless an earlier report or a fit wrote the folder."""
    found = [name for name in FILES if (folder / name).exists() or (folder / name).is_symlink()]
    figures = folder / "figures"
    if figures.is_symlink() or (figures.is_dir() and any(figures.iterdir())) or figures.is_file():
        found.append("figures")
    is_run = all((folder / name).is_file() for name in ("config.toml", "model.safetensors"))
    if found and not is_run and not _has_report(folder):
        raise RunError(
            f"{folder}: {', '.join(found)} there {'is' if len(found) == 1 else 'are'} not from an earlier report, and "
            "would be replaced. Choose another folder, or remove what is there."
        )


def _has_report(folder: Path) -> bool:
    """True where report.json is one of ours."""
    try:
        return {"answer", "verdicts", "about"} <= read_run_json(folder, "report.json").keys()
    except RunError:
        return False


def _in_order(diagnosis: Diagnosis) -> list[Section]:
    """The sections of the page: the diagnostics in their order, and at the end what rests on none of them."""
    known = all_sections()
    found = [known.get(name, Section(name, name.replace("_", " ").capitalize())) for name in diagnosis.sections]
    return [*found, *(section for section in known.values() if not section.has_result)]


def _illustrations(section: Section, subject: Subject) -> list[Illustration]:
    result = subject.results.get(section.name)
    if isinstance(result, NotComputed) or (subject.quick and not section.drawn_when_quick):
        return []
    return section.illustrations(result, subject)


def _saved(illustration: Illustration, stage: Path) -> Picture:
    """The figure on disk, and as the page has it."""
    png, svg = save_figure(illustration.figure, stage / "figures", illustration.name)
    kind, file = ("svg+xml", svg) if svg.stat().st_size <= _LARGEST_SVG else ("png", png)
    width, height = (round(float(inches) * _PIXELS_PER_INCH) for inches in illustration.figure.get_size_inches())
    title = illustration.figure.get_suptitle() or illustration.name
    return Picture(title, file.read_bytes(), kind, width, height, illustration.caption)


def _write_draws(subject: Subject, options: Options, stage: Path) -> None:
    names, labels = subject.data.feature_names, subject.data.labels
    if names is not None and len(set(names)) < len(names):
        names = None  # ArviZ wants coordinates that differ
    if labels is not None and (labels.dtype.kind not in "biuf" or np.ma.is_masked(labels)):
        labels = np.array(["" if label is None else str(label) for label in labels.tolist()])
    draws = to_arviz(
        subject.vae,
        subject.x,
        num_samples=options.num_draws or (QUICK_DRAWS if options.quick else NUM_DRAWS),
        labels=labels,
        feature_names=names,
        pareto_k=getattr(subject.results.get("importance"), "pareto_k", None),
        row_numbers=subject.data.row_numbers,
        seed=options.seed,
    )
    write_atomic(stage / "posterior.nc", lambda path: draws.to_netcdf(str(path)))


def _page_section(section: Section, diagnosis: Diagnosis, shown: Sequence[Picture]) -> PageSection:
    result = diagnosis.sections.get(section.name)
    if isinstance(result, NotComputed):
        return PageSection(section.name, section.title, section.question, not_computed=result.reason)
    summary = {} if result is None else result.summary()
    tables = table_rows(summary, section.labels), grids(summary, section.labels)
    return PageSection(section.name, section.title, section.question, *tables, shown)


def _check_names(sections: Sequence[Section]) -> dict[str, str]:
    """The names of the verdicts in the page: the title of the section, and the label of the check."""
    titles = {section.name: section.title for section in sections}
    checks = {
        f"{section.name}/{check}": f"{section.title}: {label}"
        for section in sections
        for check, label in section.checks.items()
    }
    return titles | checks


def _about(source: Source, options: Options, seconds: float) -> list[TableRow]:
    environment = environment_of({"training": {"seed": options.seed, "device": str(source.x.device)}}, source.data)
    model = source.vae.model
    parts = (model.prior, model.decoder, model.likelihood)
    threads = environment["num_threads"]
    rows = {
        **source.about,
        "Data": source.subject,
        "Fingerprint of these data": environment["data"]["fingerprint"],
        "Model": ", ".join(type(part).__name__ for part in parts),
        "Guide": type(source.vae.guide).__name__,
        "Seed of the draws": options.seed,
        "Source of log p(x)": options.truth,
        "Quick": options.quick,
        "Written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Time taken": f"{seconds:.1f} seconds, {threads} thread{'s' * (threads > 1)}",
        "Versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "Platform": environment["platform"],
    }
    return table_rows(rows)


def _as_json(diagnosis: Diagnosis, page: Page, shown: Mapping[str, list[Illustration]]) -> str:
    content: dict[str, Any] = {
        "title": page.title,
        "subject": page.subject,
        "answer": answer(page.verdicts),
        **diagnosis.summary(),
        "figures": [
            {
                "section": section,
                "name": one.name,
                "caption": one.caption,
                "files": [f"figures/{one.name}.svg", f"figures/{one.name}.png"],
            }
            for section, several in shown.items()
            for one in several
        ],
        "about": {row.label: row.value for row in page.about},
    }
    return json.dumps(as_json(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
