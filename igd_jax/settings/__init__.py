"""Rank 4: the config of a run: its flags, its fields with their checks, experiments, and grids of values."""
