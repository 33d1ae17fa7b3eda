"""Rank 2: loss sums, optimizer, mesh, checkpoints, step. Receives functions; knows no model class."""
