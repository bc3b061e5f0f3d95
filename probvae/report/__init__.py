"""Results made readable: JSON, HTML, ArviZ and figures."""
