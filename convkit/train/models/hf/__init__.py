"""Model families that transformers has of its own, through one adapter; see `families` for those that are known."""
