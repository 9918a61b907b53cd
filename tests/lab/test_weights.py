from __future__ import annotations

import json
import pickle
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench import UserError
from bench.lab.weights import build, files
from bench.recipes import Network, Noise, Trained, Training, summary

RECIPE = Trained(network=Network(depth=10, width=1), noise=Noise(), training=Training(seed=3))


def random_state(recipe: Trained = RECIPE) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    state = build.build(recipe).state_dict()
    return {
        name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t for name, t in state.items()
    }


def test_float32_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = random_state()
    files.save(tmp_path, state)
    found = files.load(tmp_path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


def test_each_precision_keeps_its_bits(tmp_path: Path) -> None:
    state = random_state()
    files.save(tmp_path, state, "bfloat16", "float8")
    found = files.load(tmp_path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            assert torch.equal(found[name], tensor)
        elif name == "noise.factor":
            # e4m3 has three bits after the leading one: half a unit there is 1/16 of the number.
            small = tensor.abs().amax(0) / 448 * 2**-10
            assert ((found[name] - tensor).abs() <= tensor.abs() / 16 + small + 1e-12).all()
            assert not torch.equal(found[name], tensor)
        else:
            assert torch.equal(found[name], tensor.bfloat16().float()), name
    size = (tmp_path / "model.safetensors").stat().st_size
    factor = state["noise.factor"].numel()
    rest = sum(t.numel() for t in state.values()) - factor
    assert size < factor + 2 * rest + 10_000


def test_what_is_stored_is_a_fixed_point(tmp_path: Path) -> None:
    """Weights that were stored once lose nothing when they are stored again."""
    for turn in range(2):
        (tmp_path / str(turn)).mkdir()
    files.save(tmp_path / "0", random_state(), "bfloat16", "float8")
    first = files.load(tmp_path / "0")
    files.save(tmp_path / "1", first, "bfloat16", "float8")
    second = files.load(tmp_path / "1")
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-6, atol=0)


def test_no_file_is_over_fifteen_megabytes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "big.factor": torch.randn(2_000_003, 5, generator=generator),
        "flat": torch.randn(4_100_000, generator=generator),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    files.save(tmp_path, state)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) >= 5 and max(file.stat().st_size for file in shards) <= 15_000_000
    index = json.loads((tmp_path / files.INDEX).read_text())
    assert {file.name for file in shards} == set(index["weight_map"].values())
    found = files.load(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@given(
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=5), limit=st.integers(2_000, 6_000)
)
@settings(max_examples=30, deadline=None)
def test_any_tensors_survive_any_cut(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    state = {f"t{i}": torch.arange(float(torch.Size(s).numel())).reshape(s) - i for i, s in enumerate(shapes)}
    files.write_shards(directory, state, limit)
    assert all(file.stat().st_size <= limit for file in directory.glob("*.safetensors"))
    found = files.read_shards(directory)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_card_is_toml_with_the_files_hashes(tmp_path: Path) -> None:
    odd = {"key with space": 'a "quote"\n\\ é \x7f'}
    card = {"recipe": summary(RECIPE), "odd": odd, "none": None, "nan": float("nan")}
    files.save(tmp_path, random_state(), card=card)
    read = tomllib.loads((tmp_path / files.CARD).read_text(encoding="utf-8"))
    assert read["recipe"]["network"] == summary(RECIPE)["network"]
    assert read["recipe"]["training"]["validation_attack"]["eps"] == "8/255"
    assert read["odd"] == card["odd"] and "none" not in read and read["nan"] != read["nan"]
    assert read["files"].keys() == {"model.safetensors"}


def test_the_seed_decides_the_first_weights() -> None:
    one, same = build.build(RECIPE).state_dict(), build.build(RECIPE).state_dict()
    other = build.build(RECIPE.model_copy(update={"training": Training(seed=4)})).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["net.conv1.weight"], other["net.conv1.weight"])
    assert not torch.equal(one["noise.factor"], other["noise.factor"])


def test_what_is_built_is_ready_to_judge() -> None:
    model = build.build(RECIPE, random_state())
    assert not model.training and model.stochastic and not any(p.requires_grad for p in model.parameters())
    assert not build.build(Trained(network=Network(depth=10, width=1))).stochastic


def test_weights_of_another_network_are_refused() -> None:
    state = random_state()
    wider = Trained(network=Network(depth=10, width=2), noise=Noise())
    with pytest.raises(UserError, match=r"has no tensor net\.blocks\.0\.sc\.weight"):
        build.build(wider, state)
    with pytest.raises(UserError, match=r"noise\.diag that the network lacks"):
        build.build(Trained(network=Network(depth=10, width=1)), state)
    fewer = Trained(network=Network(depth=10, width=1, classes=9), noise=Noise())
    with pytest.raises(UserError, match=r"net\.fc\.weight is \(10, 64\), the network's \(9, 64\)"):
        build.build(fewer, state)
    del state["noise.diag"]
    with pytest.raises(UserError, match=r"has no tensor noise\.diag"):
        build.build(RECIPE, state)


def damage(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(data)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for harm in (
        lambda: file.write_bytes(file.read_bytes()[:-1]),
        lambda: file.write_bytes(file.read_bytes() + b"x"),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(b"\xff" * 8 + b"{}"),
        lambda: damage(file, 0, (2**40).to_bytes(8, "little")),
        lambda: damage(file, 8, b"["),
        lambda: file.write_bytes(pickle.dumps({"a": 1})),
        file.unlink,
    ):
        files.save(tmp_path, {"a": torch.ones(3, 4)})
        harm()
        with pytest.raises(UserError, match=r"model\.safetensors"):
            files.load(tmp_path)


def test_a_header_that_promises_more_than_the_file_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    with pytest.raises(UserError, match="bytes of tensors"):
        files.load(tmp_path)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_in_place_of_weights_is_a_user_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("noise")
    body = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}' + content
    for data in (content, len(body).to_bytes(8, "little") + body):
        (directory / "model.safetensors").write_bytes(data)
        with pytest.raises(UserError):
            files.load(directory)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt: only safetensors are read"):
        files.load(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_names_only_shards_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / files.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"names something other"):
        files.load(tmp_path)


def test_shards_that_differ_from_their_index_are_refused(tmp_path: Path) -> None:
    files.write_shards(tmp_path, {f"t{i}": torch.ones(400) for i in range(4)}, 4_000)
    index = json.loads((tmp_path / files.INDEX).read_text())
    index["weight_map"]["t9"] = "model-00001-of-00004.safetensors"
    (tmp_path / files.INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="t9"):
        files.load(tmp_path)
    (tmp_path / files.INDEX).write_text("not json")
    with pytest.raises(UserError, match="is not an index"):
        files.load(tmp_path)
