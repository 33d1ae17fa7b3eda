"""Rank 0: types, errors, paths and logs. Imports no other folder of the package."""
