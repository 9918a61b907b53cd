"""Suites: a TOML file with every name resolved into recipes."""
