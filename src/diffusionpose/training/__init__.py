"""Training: settings, recipes and studies (plain Python, no torch), the loop, and what it leaves behind."""
