"""Benchmarks of this project against the published implementations, both in one run. Figures are in results/."""
