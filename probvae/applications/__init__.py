"""TODO room page."""

from probvae.foundation.exports import export_public_names

from .generation import Sample as Sample
from .generation import sample as sample

export_public_names(__name__)
