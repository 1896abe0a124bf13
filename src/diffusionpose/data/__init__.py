"""Pictures, annotations of people, person boxes, training samples, synthetic people."""
