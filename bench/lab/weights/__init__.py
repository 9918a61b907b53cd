"""Weights: files, fetched ones, and the classifiers they make."""
