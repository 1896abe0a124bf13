"""Weights of other projects become ours. Start at ``convert.py``."""
