"""From a run folder to its report: a page, the numbers as JSON, draws for ArviZ, and figures."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics.diagnose import Diagnosis, diagnose
from probvae.diagnostics.ledger.gap import GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.diagnostics.verdicts import NotComputed
from probvae.errors import DataError, RunError
from probvae.experiments.recipe import Recipe, read_run_recipe
from probvae.experiments.run import binarized, environment_of, for_other_data, given, split
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.pair import VAE
from probvae.report.arviz import to_arviz
from probvae.report.figures import save_figure
from probvae.report.illustration import Illustration
from probvae.report.numbers import Number, as_json, grids, numbers
from probvae.report.page import Page, Picture, Section, answer, render
from probvae.report.sections import calibration_section as calibration
from probvae.report.sections import importance_section as importance
from probvae.report.sections import latent_usage_section as latent_usage
from probvae.report.sections import ledger_section as ledger
from probvae.report.sections import pictures_section as pictures
from probvae.report.sections import prediction_section as prediction
from probvae.storage.files import staged, write_atomic, write_text
from probvae.storage.run_folder import Run
from probvae.storage.untrusted import read_run_json

Progress = Callable[[str, int, int], None]

MAX_DATA, QUICK_DATA = 500, 200
NUM_DRAWS, QUICK_DRAWS = 500, 100
NUM_POSTERIORS, QUICK_POSTERIORS = 6, 3
# a larger SVG is put into the page as PNG: a phone draws it faster
_LARGEST_SVG = 300_000
_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Options:
    """What the command line sets; ``num_data`` and ``num_draws`` are None for the defaults."""

    num_data: int | None = None
    num_draws: int | None = None
    truth: str = "auto"
    quick: bool = False
    seed: int = 0
    command: str = ""


@dataclass(frozen=True)
class Report:
    """Where the files are, and what they say of ``subject``."""

    folder: Path
    files: tuple[Path, ...]
    num_figures: int
    subject: str
    diagnosis: Diagnosis


@dataclass(frozen=True)
class _Subject:
    """What is reported on: a run's VAE, and data that it was not trained on (as far as is known)."""

    run: Path
    recipe: Recipe
    vae: VAE
    data: Dataset
    x: Tensor
    num_there: int
    kind: str  # "held-out data", "data"

    def line(self) -> str:
        """One line about it."""
        some = f"the first {self.data.num_data} of " if self.data.num_data < self.num_there else ""
        latents = f"{self.vae.model.latent_dim} latent{'s' * (self.vae.model.latent_dim > 1)}"
        return f"{some}{self.num_there} {self.kind} of {self.data.name}, {self.data.data_dim} features, {latents}"


def report_run(
    run: Path,
    vae: VAE,
    data: Dataset,
    options: Options,
    folder: Path,
    *,
    held_out: bool = True,
    progress: Progress = lambda name, number, total: None,
) -> Report:
    """Diagnose the ``vae`` of ``run`` and write report.html, report.json, posterior.nc and figures to ``folder``.

    ``held_out``: ``data`` are the run's own, and those that it was not trained on are taken of them; otherwise all of
    ``data``. At most 500 (200 with ``options.quick``), or ``options.num_data``, the first ones. All files are replaced
    at the end, or none.

    Raises :class:`~probvae.errors.RunError` for a run that is not whole, or whose data have changed,
    :class:`~probvae.errors.DataError` for more data than there are, and what
    :func:`~probvae.inference.evidence.log_evidence` raises for a ``truth`` that the model does not allow.
    """
    start = time.perf_counter()
    subject = _subject(run, vae, data, options, held_out)
    with staged(folder) as stage:
        diagnosis = diagnose(
            subject.vae,
            subject.x,
            truth=options.truth,
            num_draws=options.num_draws,
            quick=options.quick,
            seed=options.seed,
            progress=lambda name, number, total: progress(name, number, total + 1),
        )
        progress("figures", len(diagnosis.sections), len(diagnosis.sections) + 1)
        shown = _illustrations(diagnosis, subject, options)
        found = {name: [_saved(one, stage) for one in several] for name, several in shown.items()}
        _write_draws(diagnosis, subject, options, stage)
        about = _about(subject, options, time.perf_counter() - start)
        page = _page(diagnosis, subject, found, about)
        write_text(stage / "report.html", render(page))
        write_text(stage / "report.json", _as_json(diagnosis, page, shown))
    files = tuple(folder / name for name in ("report.html", "report.json", "posterior.nc"))
    return Report(folder, files, sum(map(len, shown.values())), page.subject, diagnosis)


def _subject(run: Path, vae: VAE, data: Dataset, options: Options, held_out: bool) -> _Subject:
    recipe = read_run_recipe(run)
    if held_out:
        Run(run).check_unchanged(data.fingerprint())
        data = split(data, recipe["data"]["held_out"], recipe["training"]["seed"])[1]
    kind = "held-out data" if held_out else "data"
    if options.num_data is not None and options.num_data > data.num_data:
        raise DataError(
            f"num-data: expected at most {data.num_data}, the {kind} of {data.name} that there are, got "
            f"{options.num_data}. Leave it out, or give more with --data."
        )
    num_there = data.num_data
    data = data.take(slice(options.num_data or (QUICK_DATA if options.quick else MAX_DATA)))
    vae = given(recipe, for_other_data(vae, data, options.seed), data)
    x = binarized(data, options.seed)
    if options.truth in ("exact", "quadrature"):
        log_evidence(vae.at(slice(1)), x[:1], options.truth)  # refused before minutes are spent
    return _Subject(run, recipe, vae, data, x, num_there, kind)


def _illustrations(diagnosis: Diagnosis, subject: _Subject, options: Options) -> dict[str, list[Illustration]]:
    found = {
        name: _DRAWN[name](result, subject)
        for name, result in diagnosis.sections.items()
        if name in _DRAWN and not isinstance(result, NotComputed) and not (options.quick and name in _SLOW)
    }
    gap = diagnosis.sections.get("gap")
    drawn = pictures.illustrations(
        subject.vae,
        subject.data,
        subject.x,
        gap if isinstance(gap, GapResult | UnsplitLedger) else None,
        num_posteriors=QUICK_POSTERIORS if options.quick else NUM_POSTERIORS,
        seed=options.seed,
    )
    return {**found, "pictures": drawn}


# the same pictures as those of simulated data; with --quick the numbers are enough
_SLOW = {"calibration_on_data"}
_DRAWN: Mapping[str, Callable[[Any, _Subject], list[Illustration]]] = {
    "gap": lambda result, subject: ledger.illustrations(result),
    "importance": lambda result, subject: importance.illustrations(result),
    "calibration": lambda result, subject: calibration.illustrations(result),
    "calibration_on_data": lambda result, subject: calibration.illustrations(result),
    "latent_usage": lambda result, subject: latent_usage.illustrations(result),
    "prediction": lambda result, subject: prediction.illustrations(result, subject.x, subject.data.image_shape),
}


def _saved(illustration: Illustration, stage: Path) -> Picture:
    """The figure on disk, and as the page has it."""
    png, svg = save_figure(illustration.figure, stage / "figures", illustration.name)
    kind, file = ("svg+xml", svg) if svg.stat().st_size <= _LARGEST_SVG else ("png", png)
    width, height = (round(float(inches) * _PIXELS_PER_INCH) for inches in illustration.figure.get_size_inches())
    title = illustration.figure.get_suptitle() or illustration.name
    return Picture(title, file.read_bytes(), kind, width, height, illustration.caption)


def _write_draws(diagnosis: Diagnosis, subject: _Subject, options: Options, stage: Path) -> None:
    names, labels = subject.data.feature_names, subject.data.labels
    if names is not None and len(set(names)) < len(names):
        names = None  # as coordinates they have to differ
    if labels is not None and labels.dtype.kind not in "biuf":
        labels = np.array([str(label) for label in labels])
    num_draws = options.num_draws or (QUICK_DRAWS if options.quick else NUM_DRAWS)
    draws = to_arviz(
        subject.vae,
        subject.x,
        num_samples=num_draws,
        labels=labels,
        feature_names=names,
        pareto_k=getattr(diagnosis.sections.get("importance"), "pareto_k", None),
        seed=options.seed,
    )
    write_atomic(stage / "posterior.nc", lambda path: draws.to_netcdf(str(path)))


_CALIBRATION = {
    "source": "true z from",
    "coverage": "Coverage: the share of true z inside regions of the expected content",
    "num_simulations": "number of pairs (z, x)",
    "num_draws": "draws of the guide for each",
    "tarp_area": "TARP: area between curve and diagonal",
    "log_weight_rank": "mean rank of log p(x, z) − log q(z), expected 0.5",
    "c2st_accuracy": "classifier (C2ST), expected accuracy 0.5",
    "z_score": "mean z-score, expected 0, latent",
    "z_score_squared": "mean squared z-score, expected 1, latent",
    "contraction": "contraction, latent",
}
# what each section asks, and what its numbers are called
_SECTIONS = {
    "gap": (
        "The ledger",
        "How many nats does the posterior cost, and is the guide's family at fault or its encoder? Total = "
        "approximation + amortisation.",
        {
            "total": "total: log p(x) − ELBO = KL(q ‖ p(z|x)), nats per datum",
            "approximation": "approximation: a richer guide could win it",
            "amortisation": "amortisation: a better encoder could win it",
            "truth": "log p(x) comes from",
            "kind": "which makes it",
            "truth_error": "largest error of log p(x), nats",
            "num_data": "number of data",
            "num_converged": "best guide found for, data",
            "not_split": "not split, because",
        },
    ),
    "importance": (
        "Importance weights",
        "Can draws of the guide be weighted into draws of the posterior? The heavier the weights' tail (k̂), the less.",
        {
            "threshold": "threshold of k̂ for so many draws",
            "share_above": "share of the data above it",
            "num_constant": "data with constant weights (exact)",
            "median_pareto_k": "median k̂",
            "largest_pareto_k": "largest k̂",
            "ess_share": "effective share of the draws",
            "log_evidence": "log p(x), smoothed weights, nats per datum",
            "num_data": "number of data",
            "num_samples": "draws a datum",
        },
    ),
    "calibration": (
        "Calibration on simulated data",
        "When the model makes data from a known z, does the guide's posterior hold that z as often as it says?",
        _CALIBRATION,
    ),
    "calibration_on_data": (
        "Calibration on these data",
        "The same with draws of the exact posterior at the data themselves, where the model may be of another opinion.",
        _CALIBRATION,
    ),
    "latent_usage": (
        "Latent usage",
        "Which latents carry something of x, how much, and do all data together fill the prior?",
        {
            "rate": "rate: KL(q ‖ p), nats per datum",
            "rate_method": "rate by",
            "dimension_kl": "KL of latent, nats per datum:",
            "dimension_kl_method": "KL of single latents by",
            "active_units": "active units",
            "activity": "variance of the posterior mean, latent",
            "num_active_directions": "active directions",
            "linear_theory": "theory (linear models only)",
            "mutual_information": "I(x; z), nats, own datum in q(z)",
            "mutual_information_upper": "I(x; z), nats, own datum left out",
            "aggregate_kl": "KL(q(z) ‖ p(z)), nats",
            "log_num_data": "log N, which bounds the first I(x; z)",
            "aggregate_test": "aggregate posterior against prior",
            "num_data": "number of data",
            "num_samples": "draws a datum",
            "num_prior_draws": "draws of the prior",
        },
    ),
    "prediction": (
        "Prediction",
        "Could the data have come from this model?",
        {
            "log_evidence": "held-out log p(x), nats per datum",
            "statistics": "Statistics of the data, and of data sets from the model (median and 95 % of them)",
            "family_p_value": "p-value of all statistics together",
            "loo": "PSIS-LOO",
            "num_data": "number of data",
            "num_replicates": "data sets from the model",
            "num_posterior_replicates": "data sets from the posteriors",
        },
    ),
    "pictures": ("Samples, reconstructions, latent plane", "What the model makes, and where it puts the data.", {}),
}


def _page(diagnosis: Diagnosis, subject: _Subject, found: Mapping[str, list[Picture]], about: list[Number]) -> Page:
    results = {**diagnosis.sections, "pictures": None}
    sections = [_section(name, results[name], found.get(name, [])) for name in _in_order(results)]
    title = f"Posterior report: {subject.run.resolve().name}"
    return Page(title, subject.line(), diagnosis.status, diagnosis.verdicts, sections, diagnosis.advice, about)


def _in_order(results: Mapping[str, Any]) -> list[str]:
    """The sections in the order of the page; one that the page does not know before the pictures."""
    order = [*_SECTIONS]
    unknown = [name for name in results if name not in order]
    return [name for name in (*order[:-1], *unknown, order[-1]) if name in results]


def _section(name: str, result: Any, shown: Sequence[Picture]) -> Section:
    title, lead, labels = _SECTIONS.get(name, (name.replace("_", " ").capitalize(), "", {}))
    if isinstance(result, NotComputed):
        return Section(name, title, lead, not_computed=result.reason)
    summary = {} if result is None else result.summary()
    return Section(name, title, lead, numbers(summary, labels), grids(summary, labels), shown)


def _about(subject: _Subject, options: Options, seconds: float) -> list[Number]:
    environment = environment_of(subject.recipe, subject.data)
    source, training = subject.recipe["data"]["source"], subject.recipe["training"]
    rows = {
        "Command": options.command or "probvae.report.build_report.report_run",
        "Run": str(subject.run),
        "Data": f"{subject.line()}; the run was fitted to {source}",
        "Fingerprint of these data": environment["data"]["fingerprint"],
        "Seed of the draws": options.seed,
        "Seed of the fit": training["seed"],
        "log p(x)": options.truth,
        "Quick": options.quick,
        "Written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Time taken": f"{seconds:.1f} seconds, {environment['num_threads']} threads",
        "Versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "Platform": environment["platform"],
        **_fitted_with(subject.run),
    }
    return numbers(rows)


def _fitted_with(run: Path) -> dict[str, str]:
    """The versions of the fit, where they are known: with --data nobody has looked for them yet."""
    try:
        versions = read_run_json(run, "environment.json")["versions"]
        return {"Versions of the fit": ", ".join(f"{name} {version}" for name, version in versions.items())}
    except (RunError, KeyError, AttributeError):
        return {"Versions of the fit": "not known: environment.json is missing or damaged"}


def _as_json(diagnosis: Diagnosis, page: Page, shown: Mapping[str, list[Illustration]]) -> str:
    content = {
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
