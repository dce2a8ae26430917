"""convkit: compiles, proves and trains on vision-language conversation data."""

__version__ = "0.1.0"
