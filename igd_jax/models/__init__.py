"""Rank 1: backbones and their weights. Know no items."""
