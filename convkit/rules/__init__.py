"""What data sets are judged by: one family of rules a file; `registry` has them all."""
