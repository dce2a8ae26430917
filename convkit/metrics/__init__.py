"""How good predictions are: reading them, the metrics of each data set, and how sure the scores are.

Needs no torch and no model; numpy is imported where numbers are summed up, rapidfuzz (extra `metrics`) for ANLS.
"""
