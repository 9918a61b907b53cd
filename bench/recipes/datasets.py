"""Data sets by name, each as one value; to add one takes an entry here and a loader in bench/lab/images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What proves a split, SHA-256 each (bench/lab/images/load.py says of what): its images in whatever order, the
    images with their labels, and the bytes of labels and pixels in the canonical order."""

    images: str
    labelled: str
    decoded: str


class DataSet(NamedTuple):
    """Everything of a data set that is not its images.

    `splits` are sizes by name, `shape` an image's (channels, height, width), `mean` and `std` those of the training
    images by channel, in units of [0, 1]. `loader` names the function ``module:function`` that reads a split:
    ``(split, root, download=...) -> (pixels, labels)``, pixels (n, h, w, c) uint8 and labels (n,) in canonical order,
    or UserError. Splits without a fingerprint are proved by the loader.
    """

    name: str
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    loader: str
    fingerprints: Mapping[str, Fingerprint] = {}


CIFAR10 = DataSet(
    name="cifar10",
    splits={"test": 10_000, "train": 50_000, "excerpt": 10_000},
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(3, 32, 32),
    mean=(0.49140, 0.48216, 0.44653),
    std=(0.24703, 0.24349, 0.26159),
    loader="bench.lab.images.cifar10:read",
    fingerprints={
        "test": Fingerprint(
            "eb97bdfceb97fec3832a6abdbbf9f16340a510375c77ce1b32c45de1e6d88318",
            "1b04d3429fedbbe10d7f49e7b0e05dbc88ced3c8667b55585d11660d96ca3dc6",
            "1695efc9dc931b768f20f5cb2956256bc3a12eba128a3d7f6f8a6a6910d3b57e",
        ),
        "train": Fingerprint(
            "6bebf6967ad9d2d12d9cf95f54164bd95a0954d3177f1285fa8dd3673671ca76",
            "82fb45c778383c932698f6014846eb97f11bdc4442e0946e98d22cd01c54e4ae",
            "ed6e80aa6b3746801fbdf4392a7f9cc2e1d3131cb5fe10c8dccbd9bca726b402",
        ),
        "excerpt": Fingerprint(
            "ca85630bc444989105bf31165d033bb95897eff1a4201bcb2885a32fa082a0d4",
            "d5e3534cafa8e9a108251cba0f3fd5dbf0af5a267cf4d757d127eb75cee33663",
            "f5d970275fa0c4c1fce6f57710621ceb8c279f1be51a878bb6737d7eff3eb360",
        ),
    },
)

CIFAR100 = DataSet(
    name="cifar100",
    splits={"test": 10_000, "train": 50_000},
    classes=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    ),
    shape=(3, 32, 32),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    loader="bench.lab.images.cifar100:read",
)  # fmt: skip

NAMED = {one.name: one for one in (CIFAR10, CIFAR100)}
OWN = ("npz", "folder", "python")
"""Kinds whose images no name fixes: a file (or the arrays that it would hold), a folder, what a function returns."""
