"""Views by interception: what hides a model's gradient, found and replaced in a copy; the untouched model judges.

    adapted = adapt.search(model, images, labels, Ball(8 / 255), streams, compute)
    adapted.views     # Classifiers, best first: differentiate them like any source, e.g. View(adapted.views[0], ...)
    adapted.judge     # a Classifier: select and score with this one (the model itself, or fresh copies of it)
    adapted.findings  # words, empty for an honest model

A model is a plain module or a `Classifier`. Its forward pass runs under a function mode that answers some calls with
something differentiable (`kinds` names the kinds, one module each holds their rules); `search` tries them on a few
images and keeps what raises the true error of the untouched model over selection draws. A wrong view costs time and
never truth, as long as only `judge` decides.
"""

from bench.lab.attacks.adapt.kinds import Choice, Kind
from bench.lab.attacks.adapt.outcome import Adapted, Budget, Kept, Trial
from bench.lab.attacks.adapt.search import named, search
from bench.lab.attacks.adapt.surrogate import Surrogate
from bench.lab.attacks.ball import Ball

__all__ = ["Adapted", "Ball", "Budget", "Choice", "Kept", "Kind", "Surrogate", "Trial", "named", "search"]
