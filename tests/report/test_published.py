"""Published claims as data: what is read, what is refused, what is flagged, and that the wheel has them."""

import copy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import UserError
from bench.report.published import READ, PublishedClaim, Unread, folder, read
from bench.report.published_table import flags, markdown, number

ROOT = Path(__file__).parents[2]
SHIPPED = read(ROOT / "models" / "claims")
ONE = tomllib.loads((ROOT / "models" / "claims" / "slwta.toml").read_text())


def written(tmp_path: Path, **files: dict[str, Any]) -> Path:
    from bench.lab.weights.files import toml

    def plain(table: dict[str, Any]) -> str:
        body = {key: value for key, value in table.items() if key not in ("claims", "rebuttals")}
        text = toml(body)
        for kind in ("claims", "rebuttals"):
            text += "".join(f"\n[[{kind}]]\n{toml(entry)}" for entry in table.get(kind, ()))
        return text

    for name, table in files.items():
        (tmp_path / f"{name}.toml").write_text(plain(table))
    return tmp_path


def changed(at: int = 0, **fields: Any) -> dict[str, Any]:
    table = copy.deepcopy(ONE)
    table["claims"][at] |= fields
    return table


def test_the_shipped_claims_are_enough_and_name_our_zoo() -> None:
    from bench.report.published import KINDS

    assert len(SHIPPED) >= 20 and sum(len(published.claims) for published in SHIPPED.values()) >= 20
    assert {published.zoo for published in SHIPPED.values()} - {""} == KINDS, "each defence of ours has its claim"


def test_only_what_was_read_is_a_number() -> None:
    for published in SHIPPED.values():
        for claim in (*published.claims, *published.rebuttals):
            assert isinstance(claim.robust, Unread) or claim.evidence in READ
    (first, *_) = SHIPPED["slwta"].claims
    assert (first.clean, first.robust, first.n, first.evidence) == (86.56, 76.08, 10_000, "log")
    assert isinstance(SHIPPED["rpf"].claims[0].robust, Unread)


@pytest.mark.parametrize("evidence", ["abstract", "known"])
def test_a_number_that_nobody_read_is_refused(evidence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"slwta.toml: claims.0: .*is no reading"):
        read(written(tmp_path, slwta=changed(evidence=evidence)))


def test_one_error_lists_all_that_is_missing_in_all_files(tmp_path: Path) -> None:
    first, second = copy.deepcopy(ONE), changed(1, robust=120.0, draw="froze", sauce="none")
    for key in ("n", "eot", "draw"):
        del first["claims"][0][key]
    del first["venue"]
    place = written(tmp_path, a=first, b=second, c=ONE | {"zoo": "slwtb"}, d=ONE | {"supersedes": "nothing"})
    (place / "e.toml").write_text("name = ")
    with pytest.raises(UserError) as caught:
        read(place)
    said = str(caught.value)
    for words in (
        "a.toml: venue: is missing", "a.toml: claims.0.n: is missing", "a.toml: claims.0.eot: is missing",
        "a.toml: claims.0.draw: is missing", "b.toml: claims.1.robust", "b.toml: claims.1.draw",
        "b.toml: claims.1: unknown key", "did you mean 'slwta'?", "e.toml: is not TOML", "no nothing.toml",
    ):  # fmt: skip
        assert words in said, words


def test_an_entry_is_superseded_by_a_file_that_says_so(tmp_path: Path) -> None:
    newer = ONE | {"supersedes": "old", "name": "corrected"}
    found = read(written(tmp_path, old=ONE, new=newer))
    assert list(found) == ["new"] and found["new"].name == "corrected"


def test_no_claims_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no published claims"):
        read(tmp_path)


def of(**fields: Any) -> list[str]:
    """Flags of two claims, the first with these fields, the second PGD-20 at 8/255 with 60 % left."""
    from bench.report.published import Published

    pgd = dict(attack="PGD-20", robust=60.0, steps=20, eot=1, n=10_000)
    table = copy.deepcopy(ONE) | {"claims": [ONE["claims"][0] | fields, ONE["claims"][0] | pgd]}
    return [text for at, text in flags(Published(**table)) if at == 0]


def test_faults_are_flagged() -> None:
    """F1, F3, F7, F9, F11 and F15 of a claim's protocol; a sound one has no flag."""
    sound = {"attack": "AutoAttack", "robust": 59.0}
    assert of(**sound) == []
    assert of(**sound, draw="frozen")[0].startswith("F1")
    assert of(**sound, draw="pseudo-eot")[0].startswith("F3")
    assert of(**sound, draw="none")[0].startswith("F7")
    assert of(**sound, n=32) == ["F9: 32 images"]
    assert of(**sound, library="torchattacks", version="3.4.0")[0].startswith("F11")
    assert of(**sound, library="torchattacks", version="3.2.6") == []
    assert of(attack="AutoAttack", robust=60.1) == [
        "F15: AutoAttack leaves 60.1, above the 60 of PGD-20 at the same eps"
    ]
    assert of(attack="AutoAttack", robust=60.1, eps="4/255") == [], "another eps is another question"
    assert of(attack="AutoAttack", robust=60.1, eps="unknown") == []
    told = of(attack="AutoAttack", robust={"unread": "told", "about": 65.0})
    assert told and told[0].startswith("F15, if what is told of it is so")


@settings(max_examples=40, deadline=None)
@given(aa=st.floats(0, 100), pgd=st.floats(0, 100))
def test_autoattack_above_pgd_is_flagged_exactly_then(aa: float, pgd: float) -> None:
    from bench.report.published import Published

    claims = [ONE["claims"][0] | {"attack": "AutoAttack", "robust": aa}]
    claims += [ONE["claims"][0] | {"attack": "PGD", "robust": pgd}]
    found = flags(Published(**(ONE | {"claims": claims})))
    assert any(text.startswith("F15") for _, text in found) == (aa > pgd)


def test_the_published_claims_that_the_catalogue_names_are_flagged() -> None:
    marks = {name: {text[:3].strip(":,") for _, text in flags(it)} for name, it in SHIPPED.items()}
    assert all("F1" in marks[name] for name in ("random-precision", "rna", "rpf", "ctrw"))
    assert all("F3" in marks[name] for name in ("l2p", "wca"))
    assert {"F11", "F15"} <= marks["ctrw"] and "F15" in marks["rpf"] and "F7" in marks["mixup-inference"]
    assert all("F9" in marks[name] for name in ("hrs", "diffpure", "ensemble-everything"))
    assert marks["slwta"] == set()


def test_a_number_has_the_interval_of_its_own_n_and_a_dash_has_its_reason() -> None:
    assert number(60.0, 100) == "60 (50.2 to 69.1)" and number(60.0, "unknown") == "60"
    text = markdown(SHIPPED)
    assert "76.08 (75.2 to 76.9)" in text and "— <sup>a</sup>" in text
    for published in SHIPPED.values():
        for claim in published.claims:
            for value in (claim.clean, claim.robust):
                assert not isinstance(value, Unread) or value.unread in text


def test_claims_are_strict() -> None:
    claim = ONE["claims"][0]
    assert PublishedClaim(**claim).eps is not None
    for field, value in {"n": 1.5, "eot": 0, "robust": float("nan"), "norm": "L7", "eps": "8/0"}.items():
        with pytest.raises(ValueError):
            PublishedClaim(**(claim | {field: value}))


def test_they_are_found_wherever_the_command_runs(tmp_path: Path) -> None:
    assert folder(tmp_path) == ROOT / "models" / "claims"
    own = tmp_path / "models" / "claims"
    own.mkdir(parents=True)
    written(own, mine=ONE)
    assert folder(tmp_path) == own
    done = subprocess.run(
        [sys.executable, "-m", "bench", "published"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Stochastic LWTA" in done.stdout


@pytest.mark.slow
def test_the_wheel_has_them_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("bench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if "/share/freshdraws/claims/" in name]
        assert len(inside) == len(list((ROOT / "models" / "claims").glob("*.toml")))
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True)
    code = (
        "from bench.report.published import folder, read; place = folder(); print(place); assert len(read(place)) > 20"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
