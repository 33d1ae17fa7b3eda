"""Rank 0: types, errors, paths and logs. Imports nothing else of the package."""
