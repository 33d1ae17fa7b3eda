"""Rank 3: one module per kind of identifiers; the file name is ``config.identifiers.name``."""
