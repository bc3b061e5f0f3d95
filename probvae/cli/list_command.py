"""`probvae list`."""

import click

FAMILIES = ("priors", "likelihoods", "decoders", "encoders", "guides", "objectives", "data")


@click.command("list")
@click.argument("what", type=click.Choice(FAMILIES))
def command(what: str) -> None:
    """List all components of a family, or all data sets, one line each."""
    from probvae.cli.output import shown_warnings

    with shown_warnings():
        names = _data_sets() if what == "data" else _components(what)
    width = max(map(len, names))
    for name, summary in sorted(names.items()):
        click.echo(f"{name:<{width}}  {summary}")


def _components(what: str) -> dict[str, str]:
    from probvae.inference import Encoder, Guide, Objective
    from probvae.models import Decoder, Likelihood, Prior

    families = (Prior, Likelihood, Decoder, Encoder, Guide, Objective)
    family = next(f for f in families if f"{f.family}s" == what)
    return {name: component.summary() for name, component in family.all_registered().items()}


def _data_sets() -> dict[str, str]:
    from probvae.data import DATASETS

    return {name: spec.summary for name, spec in DATASETS.items()}
