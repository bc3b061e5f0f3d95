"""Results made readable: JSON, HTML, ArviZ and figures."""

from probvae.foundation.exports import export_public_names

from .arviz import to_arviz as to_arviz

export_public_names(__name__)
