"""From rows to model input, and training on it: the only package that imports torch (extra `train`)."""
