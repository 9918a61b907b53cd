"""Classifiers that somebody else made, each library behind one function `load(...) -> Loaded`.

Weights are read from safetensors, or by ``torch.load(weights_only=True)``, and by nothing else.
What cannot be had raises FileNotFoundError, what cannot be used ValueError, and what is not
installed ImportError, each with a sentence that says how to mend it.
"""
