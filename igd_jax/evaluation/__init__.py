"""Rank 1: ranking metrics, significance and tables, in NumPy only."""
