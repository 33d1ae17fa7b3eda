"""Rank 3: one module a method; the file name is ``config.method.name``."""
