"""Advice: sentences that say what to try next, derived from the numbers of the diagnostics."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from probvae.diagnostics.convergence import NAME as CONVERGENCE
from probvae.diagnostics.convergence import ConvergenceResult
from probvae.diagnostics.ledger.gap import Gap, GapResult, full_covariance_gain
from probvae.diagnostics.ledger.generalisation import NAME as GENERALISATION
from probvae.diagnostics.ledger.generalisation import GeneralisationResult
from probvae.diagnostics.prediction.predictive_check import PredictiveCheckResult
from probvae.diagnostics.usage.latent_usage import LatentUsageResult
from probvae.diagnostics.verdicts import FAIL, NOT_COMPUTED, OK, WARN, Diagnostic, Verdict, mean_with_error, with_error
from probvae.diagnostics.weights.importance import ImportanceDiagnostic
from probvae.errors import ProbvaeError
from probvae.inference.evaluation.variance import floor_warning
from probvae.inference.guides.families import as_normal
from probvae.inference.pair import VAE

# A number counts where it is so many standard errors above zero.
_SIGMAS = 3.0
# Weights can be used where they are unreliable for at most this share of the data.
_FEW = 0.05
# Smaller gaps (nats per datum) are not worth another guide.
_WORTHWHILE = 0.02


def advice_for(
    vae: VAE,
    x: Tensor,
    sections: Mapping[str, Diagnostic],
    verdicts: list[Verdict],
    *,
    num_tried: int = 50,
    seed: int = 0,
) -> list[str]:
    """Sentences that say what to try next, the most useful first.

    ``x`` is (N, D), ``sections`` the results of the diagnostics by name, and ``verdicts`` what came of them. A richer
    guide is tried on the first ``num_tried`` rows. Where all is well, the one sentence says so.
    """
    rejected = {verdict.name for verdict in verdicts if verdict.status in (WARN, FAIL)}
    found = [
        *_from_floor(vae, x),
        *_from_training(sections.get(CONVERGENCE), sections.get(GENERALISATION)),
        *_from_ledger(vae, x[:num_tried], sections, seed),
        *_from_weights(sections, rejected),
        *_from_latents(sections.get("latent_usage"), rejected, sections.get(CONVERGENCE)),
        *_from_prediction(sections.get("prediction"), rejected),
    ]
    if not found and not rejected and any(verdict.status == OK for verdict in verdicts):
        some = " that could be computed" if any(verdict.status == NOT_COMPUTED for verdict in verdicts) else ""
        return [f"Nothing: no diagnostic{some} has anything against this posterior."]
    return found


def _from_floor(vae: VAE, x: Tensor) -> Iterator[str]:
    if not floor_warning(vae, x):
        return
    centred = (x.double() - x.double().nanmean(0)).nan_to_num()
    # Rows of a subspace lie beside it by the rounding of their own entries, which has to count as zero.
    rank = int(torch.linalg.matrix_rank(centred, rtol=max(x.shape) * torch.finfo(x.dtype).eps))
    where = f"the data lie on a {rank}-dimensional subspace" if rank < x.shape[1] else "the decoder passes through them"
    yield (
        f"The noise variance c sits on its floor: {where}, and the bound grows without end as c falls. Fix c "
        "(--variance 0.01), leave out constant columns, or read the bound with that in mind."
    )


def _from_training(convergence: Diagnostic | None, generalisation: Diagnostic | None) -> Iterator[str]:
    """Longer training, unless the encoder has overfitted: then it would make the posterior of new data worse."""
    if isinstance(generalisation, GeneralisationResult) and generalisation.overfitted:
        yield (
            f"{generalisation.verdicts()[0].message}. Do not train it longer: stop earlier (--patience 10), give it "
            "more data or a smaller encoder (--set inference.encoder.hidden=[...]), or refine it datum by datum "
            "(probvae.refine)."
        )
    elif isinstance(convergence, ConvergenceResult) and not convergence.ended:
        worst = [verdict.message for verdict in convergence.verdicts() if verdict.status != OK]
        yield f"{worst[0]} (--epochs), before anything else is changed."


def _from_ledger(vae: VAE, x: Tensor, sections: Mapping[str, Diagnostic], seed: int) -> Iterator[str]:
    gap, generalisation = sections.get("gap"), sections.get(GENERALISATION)
    if not isinstance(gap, GapResult):
        return
    total = gap.total.mean()["value"] or 0.0
    overfitted = isinstance(generalisation, GeneralisationResult) and generalisation.overfitted
    if not overfitted and _matters(gap.amortisation) and gap.amortisation.value.mean() > 0.2 * total:
        yield (
            f"The encoder loses {_told(gap.amortisation)} of {total:.2g} nats: {_longer(sections)}make it "
            "larger (--set inference.encoder.hidden=[...]), or refine it datum by datum (probvae.refine)."
        )
    if _matters(gap.approximation):
        yield from _richer(vae, x, gap, seed)


def _longer(sections: Mapping[str, Diagnostic]) -> str:
    """Longer training, where nothing says that it has ended."""
    convergence = sections.get(CONVERGENCE)
    if isinstance(convergence, ConvergenceResult) and convergence.trend is not None and convergence.ended:
        return ""
    known = isinstance(sections.get(GENERALISATION), GeneralisationResult)
    return "train it longer, " if known else "train it longer (unless it does better on its training rows), "


def _richer(vae: VAE, x: Tensor, gap: GapResult, seed: int) -> Iterator[str]:
    rows = slice(min(len(x), len(gap.total.value)))
    loses = f"The guide's family loses {_told(gap.approximation)} nats"
    try:
        gain = full_covariance_gain(vae.at(rows), x[rows], gap, seed=seed)
    except ProbvaeError:
        yield f"{loses}: try a richer one (--guide full-covariance, mixture or flow)."
        return
    whole = gap.approximation.value[rows].mean()
    if gain is not None and _matters(gain):
        part = f"{_told(gain)} of the {whole:.3g} nats"
        yield f"A full-covariance guide would recover {part} that the diagonal family loses."
    if gain is None and as_normal(vae.guide.distribution(x[rows])) is None:
        yield f"{loses}: give it more components or transforms, or try another family."
    elif gain is None:
        yield f"{loses}: the posterior is not normal. Try --guide mixture or --guide flow."
    elif gain.value.mean() < 0.5 * whole:
        yield (
            f"{loses}, and a full covariance would win less than half of it: the posterior is not normal. Try --guide "
            "mixture or --guide flow."
        )


def _from_weights(sections: Mapping[str, Diagnostic], rejected: set[str]) -> Iterator[str]:
    importance = sections.get("importance")
    if not isinstance(importance, ImportanceDiagnostic) or importance.share_above > _FEW:
        return
    if any(name.startswith(("gap", "calibration")) for name in rejected):
        yield (
            f"Until then correct the guide's draws: probvae.resample(vae, x) weights them (Pareto k is below "
            f"{importance.threshold:.2g} for {1 - importance.share_above:.0%} of the data)."
        )


def _from_latents(usage: Diagnostic | None, rejected: set[str], convergence: Diagnostic | None) -> Iterator[str]:
    if not isinstance(usage, LatentUsageResult):
        return
    (collapse,) = usage.verdicts()
    if collapse.name in rejected or not usage.used.all():
        # Before the training has ended, a latent that is off says nothing of the data.
        ended = isinstance(convergence, ConvergenceResult) and convergence.trend is not None and convergence.ended
        num_used = int(usage.used.sum())
        loses_nothing = ended and num_used > 0 and usage.theory is None
        fewer = f"; or latent_dim={num_used}, which loses nothing" if loses_nothing else ""
        yield f"{collapse.message}{fewer}."
    if "latent_usage/aggregate_posterior" in rejected and usage.aggregate_kl is not None:
        mean = mean_with_error(usage.aggregate_kl)
        if (mean["value"] or 0.0) > max(_WORTHWHILE, _SIGMAS * (mean["standard_error"] or 0.0)):
            yield (
                "The data do not fill the prior: with decoder and guide as they are, one that is learned (--prior "
                f"mixture, vamp or flow) would win {with_error(mean['value'] or 0.0, mean['standard_error'])} nats of "
                "the bound, KL(q(z) || p(z)). Trained together with them it may win more: that is no upper limit."
            )


def _from_prediction(prediction: Diagnostic | None, rejected: set[str]) -> Iterator[str]:
    if not isinstance(prediction, PredictiveCheckResult):
        return
    for test in prediction.tests():
        if test.name in rejected:
            yield f"The model, not the guide: {test.rejected.rstrip('.')}.".replace("?.", "?")


def _matters(gap: Gap) -> bool:
    mean = gap.mean()
    value, error = mean["value"] or 0.0, mean["standard_error"] or 0.0
    return value > max(_WORTHWHILE, _SIGMAS * error)


def _told(gap: Gap) -> str:
    mean = gap.mean()
    return with_error(mean["value"] or 0.0, mean["standard_error"])
