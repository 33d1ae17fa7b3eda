"""Rank 3: kinds of identifiers, one per module; module names are the values of `config.identifiers.name`."""
