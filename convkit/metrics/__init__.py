"""Metrics of predictions: the predictions file, scores per dataset, and bootstrap confidence intervals.

Needs neither torch nor a model. numpy is imported where scores are aggregated, rapidfuzz (extra `metrics`) for ANLS.
"""
