"""Model families that transformers implements, through one class; `families` lists the supported ones."""
