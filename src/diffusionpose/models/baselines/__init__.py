"""The transformers of Table 2: one small file per method."""
