"""Training: settings and recipes (both plain Python, no torch), the Lightning module and the run."""
