"""Synthetic people in COCO's format: for tests and first tries that need no download."""

from diffusionpose.data.synthetic.writer import draw_picture, write_synthetic

__all__ = ["draw_picture", "write_synthetic"]
