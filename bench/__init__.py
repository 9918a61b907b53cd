"""An evaluation harness for randomised and distilled defences against adversarial examples."""

__version__ = "0.1.0"
