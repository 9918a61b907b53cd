"""Classifiers, their noise and their smoothing, in plain torch; nothing here imports `bench`."""
