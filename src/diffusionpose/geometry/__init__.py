"""Pure functions on tensors: crops, heatmaps, masks, flips. Batched; any device; no state."""
