"""Votes to what people look at: pure functions of records."""
