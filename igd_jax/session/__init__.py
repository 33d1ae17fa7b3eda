"""Rank 5: a run put together, from its settings to recommendations. What the entry points share."""
