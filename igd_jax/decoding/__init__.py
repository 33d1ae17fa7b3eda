"""Rank 2: the trie on the device and the beam search over it."""
