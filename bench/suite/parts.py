"""What a suite's tables hold: which recipe each part is, and which keys are names of other parts."""

from __future__ import annotations

from typing import get_args

from bench import recipes
from bench.recipes import NETWORKS, NOISES, Clean, Crafting, Data, Fetched, OfModel, Recipe, Through, Trained
from bench.suite.schema import Entry, Figure, Table

PARTS: dict[str, tuple[type[Recipe], ...]] = {
    "datasets": (Data,),
    "networks": NETWORKS,
    "noises": NOISES,
    "defences": (*get_args(OfModel), *get_args(Through)),
    "attacks": (Clean, *get_args(Crafting)),
    "optimisers": (recipes.Optimiser,),
    "schedules": (recipes.Schedule,),
    "trainings": (recipes.Training,),
    "weights": (Trained, recipes.Distilled, Fetched),
    "models": (Entry,),
    "tables": (Table,),
    "figures": (Figure,),
}


REFERENCES = {
    "data": "datasets",
    "network": "networks",
    "noise": "noises",
    "defence": "defences",
    "other": "weights",
    "attack": "attacks",
    "validation_attack": "attacks",
    "attacks": "attacks",
    "optimiser": "optimisers",
    "schedule": "schedules",
    "training": "trainings",
    "weights": "weights",
    "teacher": "models",
}


DEFAULTS: dict[tuple[str, str], Recipe] = {("attacks", "clean"): Clean(), ("datasets", "test"): Data()}


SPELLED = {Table, Figure}  # these keep names: a table's data and attack are looked up for each cell
