"""Experiments as files. Nothing here imports igd_jax, and igd_jax imports nothing from here."""
