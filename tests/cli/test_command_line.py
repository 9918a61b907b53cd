"""What a person types and sees: one name for one idea, one table of exit codes, every format, any terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bench
from bench import Paused
from bench.cli import codes, terminal
from bench.report.forms import FORMS, Answer, readable, written

ROOT = Path(__file__).parents[2]
NET = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
"""
SUITE = """
[suite]
title = "A [small] suite, ± 1"
[datasets.test]
stop = 12
[weights.net]
kind = "python"
name = "net.py:build"
[models.net]
weights = "net"
label = "My net"
[attacks.pgd]
kind = "pgd"
steps = 2
[tables.t]
title = "8/255 ± nothing"
rows = ["net"]
columns = ["clean", "pgd"]
[[claims]]
id = "wrong"
text = "attacks help [sic]"
holds = "t[net, pgd] - t[net, clean] > 0.99"
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a suite was run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "net.py").write_text(NET)
    (folder / "s.toml").write_text(SUITE)
    words = [sys.executable, "-m", "bench", "run", "s.toml", "--device", "cpu"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("page: results/s/index.html")
    return folder


@pytest.fixture
def type_(ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Type a command in that folder."""
    from bench.cli.app import main

    monkeypatch.chdir(ran)

    def typed(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["freshdraws", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return Said(int(end.value.code or 0), *capsys.readouterr())

    return typed


def test_the_version_is_the_packages(type_: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bench.__version__"}
    assert type_("--version") == Said(0, f"freshdraws {bench.__version__}\n", "")
    assert f"version: {bench.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_former_names_work_and_are_told(type_: Any) -> None:
    now = type_("plan", "s.toml", "--images", "5")
    former = type_("plan", "s.toml", "--limit", "5")
    assert former.out == now.out and former.err == "note: --limit is now called --images\n" + now.err
    assert terminal.present(["record", "--slot=9m", "--json", "--strict", "--", "--json"]) == (
        ["record", "--max-time=9m", "--format", "json", "--", "--json"],
        ["note: --slot is now called --max-time", "note: --json is now called --format json",
         "note: --strict is not needed any more"],
    )  # fmt: skip


def test_plan_takes_what_run_takes() -> None:
    import inspect

    from bench.cli import make, read

    run, plan = (inspect.signature(verb).parameters for verb in (make.run, read.plan))
    assert set(run) <= set(plan)
    for name, about in run.items():
        assert (about.annotation, about.default) == (plan[name].annotation, plan[name].default)


def test_help_lists_every_verb_and_loads_little(ran: Path) -> None:
    """What --help imports is what its time is made of: none of what takes long to load."""
    from bench.cli.app import VERBS

    code = (
        "import sys; sys.argv[1:] = ['--help']\nfrom bench.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'pyarrow', 'matplotlib', 'markdown_it'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "110"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ran, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines()[1 : len(VERBS) + 1]] == [*VERBS]
    assert all(line in done.stdout for line in VERBS.values())
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert all(f"| `{verb}` | {line} |" in page for verb, line in VERBS.items())


def test_every_verb_calls_one_idea_by_one_name() -> None:
    import inspect

    from bench.cli import examine, make, read, write
    from bench.cli.app import app

    by_name: dict[str, set[str]] = {}
    for module in (examine, make, read, write):
        for command in app.registered_commands:
            if command.callback and command.callback.__module__ == module.__name__:
                for name, about in inspect.signature(command.callback).parameters.items():
                    by_name.setdefault(name, set()).add(str(about.annotation))
    assert not {"limit", "slot", "json", "strict"} & set(by_name)
    assert len(by_name["root"]) == len(by_name["device"]) == len(by_name["data_root"]) == len(by_name["batch"]) == 1


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.rows += tag == "tr"


VERBS = [
    ["tables", "s.toml"], ["run", "s.toml"], ["plan", "s.toml", "--images", "5"], ["claims", "s.toml"], ["published"],
    ["compare", "s.toml"], ["list", "models", "--suite", "s.toml"], ["results"], ["verify", "s.toml", "--seals"],
]  # fmt: skip


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_every_verb_answers_in_every_format(words: list[str], type_: Any) -> None:
    said = {form: type_(*words, "--format", form) for form in FORMS}
    assert {one.code for one in said.values()} <= {0, 3} and len({one.code for one in said.values()}) == 1
    parsed = json.loads(said["json"].out)
    count = len(list(csv.DictReader(io.StringIO(said["csv"].out))))
    assert parsed and count >= 1 and Tags(said["html"].out).rows >= count
    assert "\\begin{tabular}" in said["latex"].out and said["md"].out.strip()
    assert type_(*words, "--format", "xls").code == 2


def test_exit_codes(type_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type_("tables", "s.toml").code == codes.DONE
    assert type_("tables", "no.toml").code == codes.MISTAKE
    assert type_("tables", "s.toml", "--no-such-option").code == codes.MISTAKE
    contradicted = type_("claims", "s.toml")
    assert contradicted.code == codes.DOUBT and "contradicted" in contradicted.out
    from bench.run import session

    def paused(*words: Any) -> None:
        raise Paused("half way")

    monkeypatch.setattr(session, "open_suite", paused)
    pause = type_("run", "s.toml")
    assert pause.code == codes.PAUSED and "resume with: freshdraws run s.toml" in pause.err


def test_the_codes_are_on_the_page_and_in_help(type_: Any) -> None:
    assert codes.markdown() in (ROOT / "docs" / "exit-codes.md").read_text("utf-8")
    said = " ".join(type_("--help").out.split())
    assert all(f"{code} " in said.partition("Exit codes:")[2] for code in codes.MEANING)


def test_a_mark_of_a_diagnosis_exits_with_3(type_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.lab.examine import of_suite
    from bench.lab.examine.rules import Finding

    for verdict, code in (("suspicious", codes.DOUBT), ("ok", codes.DONE), ("cannot tell", codes.DONE)):
        found = Finding("check", "figure", verdict, "advice")
        monkeypatch.setattr(of_suite, "examine", lambda *words, found=found: iter([found]))
        assert type_("diagnose", "s.toml", "net", "--device", "cpu").code == code
    (Path("results/s/diagnosis/net.json")).unlink()


def test_a_terminal_sees_no_entities_and_a_file_keeps_them(type_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "&#91;sic&#93;" in type_("claims", "s.toml").out
    monkeypatch.setattr(terminal, "_tty", lambda: True)
    said = type_("claims", "s.toml").out
    assert "attacks help [sic]" in said and "&#" not in said
    assert readable("1 ± 2 <sup>a,b</sup> | x<br>\n<sup>a</sup> why &#91;b&#93; <sub>p</sub>") == (
        "1 ± 2 (a,b) | x\n(a) why [b] p"
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_another(encoding: str, ran: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-m", "bench", "tables", "s.toml"], cwd=ran, capture_output=True, env=env)
    text = done.stdout.decode(encoding)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert ("±" in text) == (encoding != "ascii") and ("+-" in text) == (encoding == "ascii")
    helped = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=ran, capture_output=True, env=env)
    assert helped.returncode == 0 and b"verify" in helped.stdout


def test_every_character_that_we_print_has_a_plain_form() -> None:
    for char, plain in {"±": "+-", "−": "-", "—": "--", "╭": "+", "─": "-", "│": "|", "é": "e", "漢": "?"}.items():
        error = UnicodeEncodeError("ascii", f"a{char}b", 1, 2, "")
        assert terminal._plain(error) == (plain, 2)


def test_tables_go_to_a_file_in_the_format_of_its_name(type_: Any, ran: Path, tmp_path: Path) -> None:
    for name, begins in {"t.tex": "\\begin{table}", "t.csv": "table,", "t.md": "# A ", "t.json": "{"}.items():
        done = type_("tables", "s.toml", "--output", str(tmp_path / name))
        text = (tmp_path / name).read_text("utf-8")
        assert done.code == 0 and done.out == "" and begins in text and text.endswith("\n") and text[-2] != "\n"
    refused = type_("tables", "s.toml", "-o", str(tmp_path / "no" / "t.tex"))
    assert refused.code == 2 and "a folder that exists" in refused.err


def test_results_are_one_tidy_frame(type_: Any, ran: Path) -> None:
    cells = json.loads(type_("results", "--format", "json").out)
    assert [(one["model"], one["attack"], one["label"], one["eps"]) for one in cells] == [
        ("net", "clean", "My net", None), ("net", "pgd", "My net", "8/255"),
    ]  # fmt: skip
    images = json.loads(type_("results", "--each", "image", "--format", "json").out)
    for cell in cells:
        own = [row for row in images if row["attack"] == cell["attack"]]
        assert len(own) == 12 and sum(row["right"] for row in own) / 12 == pytest.approx(cell["value"])
        assert len({row["index"] for row in own}) == 12 and max(row["linf"] for row in own) <= 8 / 255 + 1e-6
    frame = bench.results(ran)
    columns = list(getattr(frame, "columns", [])) if hasattr(frame, "iloc") else frame.column_names
    assert {"suite", "model", "attack", "value", "low", "high", "label"} <= set(columns)
    assert len(bench.results(ran, each="image")) == 24
    assert type_("results", "--each", "pixel").code == 2 and type_("results", "nowhere").code == 2


def test_init_then_run(type_: Any, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    assert type_("init", "net.py:build").code == 0
    assert type_("init", "net.py:build").code == 2, "what is there is not overwritten"
    done = type_("run", "suite.toml", "--images", "8", "--device", "cpu", "--quiet")
    assert done.code == 0, done.err
    assert "| mine | white-box |" in (tmp_path / "results" / "suite" / "tables.md").read_text("utf-8")


def test_footnotes_name_the_libraries_that_had_a_part(ran: Path) -> None:
    text = (ran / "results" / "s" / "tables.md").read_text("utf-8")
    assert "torch " in text and "numpy " in text and "torchattacks" not in text and "timm" not in text


def test_an_answer_without_rows_is_said_in_every_format() -> None:
    for form in FORMS:
        assert isinstance(written(Answer([]), form), str)


def test_the_board_of_suites_needs_records_and_an_output_of_a_kind(type_: Any, tmp_path: Path) -> None:
    done = type_("published", "s.toml")
    assert done.code == codes.MISTAKE and "no randomised model is recorded" in done.err, done.err
    whole = type_("published", "--output", str(tmp_path / "claims.csv"))
    assert whole.code == 0 and (tmp_path / "claims.csv").read_text().startswith("defence,")
