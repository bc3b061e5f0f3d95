"""TODO room page."""
