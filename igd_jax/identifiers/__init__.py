"""Rank 3: kinds of identifiers, one per module. Each is what `config.identifiers.name` names."""
