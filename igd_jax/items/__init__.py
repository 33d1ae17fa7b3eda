"""Rank 1: the catalogue, its trie and the information gain. Knows no model."""
