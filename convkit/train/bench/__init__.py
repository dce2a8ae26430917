"""Measure how fast this machine trains: the real trainer on a model with random weights."""
