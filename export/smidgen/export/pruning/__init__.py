"""Structured pruning: whole channels leave a network, and an ordinary smaller one remains."""
