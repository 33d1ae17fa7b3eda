"""Rank 4: a run put together, from its config to recommendations. What the entry points share."""
