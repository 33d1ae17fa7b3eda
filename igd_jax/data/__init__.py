"""Rank 2: from raw interactions to batches of token ids."""
