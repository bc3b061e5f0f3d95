"""The sections of a report: from a diagnostic's result to its illustrations, one file a section."""
