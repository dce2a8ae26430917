"""Helpers that know nothing of datasets or models: files, progress, digests, worker processes."""
