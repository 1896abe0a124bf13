"""Networks that find persons in pictures, where their weights come from, and the choice among them."""
