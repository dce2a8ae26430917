"""Show the tokens, labels and images that a model gets from a row."""
