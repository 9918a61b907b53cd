"""Published randomised defences, one a file, over any network that their definitions allow.

Each is a `Classifier`: its noise is drawn from the generator given, `where` says where it lives, `mean()` is the
network without it, and `atoms()` lists a finite support. Those that need training have parameters of their own.
"""

from bench.models.defences.crops import CropEnsemble
from bench.models.defences.ctrw import CTRW
from bench.models.defences.features import RandomFeatures
from bench.models.defences.mixture import Mixture
from bench.models.defences.precision import RandomPrecision
from bench.models.defences.resize_pad import ResizePad
from bench.models.defences.rna import RNA
from bench.models.defences.rnd import RND
from bench.models.defences.rpf import RPF
from bench.models.defences.sap import SAP
from bench.models.defences.slwta import SLWTA, LWTAWideResNet
from bench.models.defences.wca import WCA

__all__ = [
    "CTRW", "RNA", "RND", "RPF", "SAP", "SLWTA", "WCA", "CropEnsemble", "LWTAWideResNet", "Mixture", "RandomFeatures",
    "RandomPrecision", "ResizePad",
]  # fmt: skip
