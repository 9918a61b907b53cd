"""The store: recipes' sealed records, what is missing, what it costs, on which machine."""
