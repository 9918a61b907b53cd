"""Is this robustness real? Diagnosis and cross-check."""
