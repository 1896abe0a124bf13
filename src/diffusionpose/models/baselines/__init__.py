"""The methods DiffusionPose is compared with: one file for each, on the same encoders and heatmaps."""
