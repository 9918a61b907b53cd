"""The graph of recipes: what each is made from, and recipes as plain values and back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, get_args

from bench.recipes.attacks import Clean, Crafting
from bench.recipes.base import Recipe
from bench.recipes.defences import CTRW, RNA, RND, RPF, SAP, SLWTA, WCA, CropEnsemble, NoiseOff, RandomFeatures

from bench.recipes.defences import RandomPrecision, ResizePad  # isort: skip
from bench.recipes.stopping import Stopping
from bench.recipes.training import NETWORKS, NOISES, Data, Optimiser, Schedule, Training
from bench.recipes.work import Distilled, Examples, Fetched, Mixture, Model, Outcomes, Trained, Work


def targets_of(recipe: Distilled) -> Outcomes | None:
    """The cached teacher outputs a distillation reads: the teacher's votes on its training images."""
    if recipe.targets == "online":
        return None
    examples = Examples(data=recipe.data, precision=recipe.precision)
    return Outcomes(examples=examples, target=recipe.teacher, draws=recipe.draws, precision=recipe.precision)


def inputs(recipe: Work) -> list[Work]:
    """What a recipe is made from, in the order in which it is needed."""
    match recipe:
        case Trained() | Fetched():
            return []
        case Distilled():
            cached = targets_of(recipe)
            return [*recipe.teacher.made_from, *([cached] if cached else [])]
        case Examples(source=None):
            return []
        case Examples(source=Model() as source):
            return [*source.made_from]
        case Outcomes(examples=Examples(attack=Clean())):
            return [*recipe.target.made_from]
        case Outcomes():
            return [recipe.examples, *recipe.target.made_from]
    raise TypeError(type(recipe).__name__)


def summary(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values, nested, with every type's name: what a manifest holds."""

    def plain(value: Any) -> Any:
        match value:
            case Recipe():
                return {"type": type(value).__name__, "rev": value.rev} | {
                    name: plain(getattr(value, name)) for name in value.told()
                }
            case Fraction():
                return str(value)
            case tuple() | list():
                return [plain(item) for item in value]
            case dict():
                return {str(name): plain(item) for name, item in value.items()}
            case _:
                return value

    result = plain(recipe)
    assert isinstance(result, dict)
    return result


KINDS: tuple[type[Recipe], ...] = (
    Data, *NETWORKS, *NOISES, Clean, *get_args(Crafting), Optimiser, Schedule, Training,
    Trained, Distilled, Fetched, Model, Examples, Stopping, Outcomes,
    RND, RandomFeatures, ResizePad, CropEnsemble, SAP, RandomPrecision, Mixture, RNA, RPF, CTRW, WCA, SLWTA, NoiseOff,
)  # fmt: skip
TYPES: dict[str, type[Recipe]] = {kind.__name__: kind for kind in KINDS}


def parse(summary: Any) -> Recipe:
    """The recipe a `summary` describes; ValueError if it is not one, or of another rev."""
    if not isinstance(summary, dict) or summary.get("type") not in TYPES:
        raise ValueError("not a recipe")
    kind = TYPES[summary["type"]]
    if summary.get("rev") != kind.rev:
        raise ValueError(f"{kind.__name__} of rev {summary.get('rev')}, this version makes rev {kind.rev}")

    def value(item: Any) -> Any:
        if isinstance(item, dict) and item.get("type") in TYPES:
            return parse(item)
        return [value(entry) for entry in item] if isinstance(item, list) else item

    return kind(**{name: value(item) for name, item in summary.items() if name not in ("type", "rev")})
