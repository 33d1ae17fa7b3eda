"""The page of `igd_jax.report`: what it tells of runs, and how it is drawn (docs/report.md)."""
