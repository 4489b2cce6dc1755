"""What the texts say of the code: commands that parse, keys that exist, every fault by its name. And links that lead
somewhere.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import pytest
import runs

from lungjax import arguments
from lungjax.ct.faults import FAULTS, IN_VOXELS, NOTES

ROOT = runs.ROOT
TEXTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_USAGE = re.compile(r"[\[|]|\bNAME\b|\bDIR\b")
"""Of a line that shows what a command takes, and is none."""


def _commands() -> Iterator[tuple[str, str]]:
    """Where each command line of the texts stands, and the line itself."""
    for path in TEXTS:
        for language, block in _FENCED.findall(path.read_text()):
            if language in ("", "bash"):
                for line in re.sub(r"\\\n\s*", "", block).splitlines():
                    yield str(path.relative_to(ROOT)), line.removeprefix("srun ").strip()


links = runs.load(ROOT / "scripts/check_links.py")

VERBS = [one for one in _commands() if one[1].startswith("lungjax ")]
TRAININGS = [one for one in _commands() if one[1].startswith("python -m lungjax.main ")]
SCRIPTS = [one for one in _commands() if re.match(r"(python|bash) scripts/", one[1])]


def _config(named: str) -> ml_collections.ConfigDict:
    """That of `configs/NAME.py[:VARIANT]`; KeyError where there is no such variant."""
    path, _, variant = named.partition(":")
    module = runs.load(ROOT / path)
    return module.get_config(variant) if variant else module.get_config()


def _keys(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict) and key != "parts":  # The parts' names are the user's.
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


ALL_KEYS = {key for path in (ROOT / "configs").glob("*.py") for key in _keys(_config(f"configs/{path.name}"))}


def test_the_texts_have_commands():
    assert len(VERBS) > 40
    assert len(TRAININGS) > 20
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize(("where", "line"), VERBS)
def test_a_command_is_one_that_the_parser_takes(where, line, capsys):
    verbs = arguments.parser()
    if _USAGE.search(line):
        with pytest.raises(SystemExit):
            verbs.parse_args([shlex.split(line)[1], "--help"])
        told = capsys.readouterr().out
        for flag in re.findall(r"--[a-z0-9-]+", line):
            assert flag in told, f"{where}: {line}"
    else:
        verbs.parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(("where", "line"), TRAININGS)
def test_a_training_has_a_configuration_with_the_keys_it_sets(where, line):
    given = shlex.split(line, comments=True)[3:]
    named = next(one.removeprefix("--config=") for one in given if one.startswith("--config="))
    if _USAGE.search(named):
        return
    keys = set(_keys(_config(named)))
    for option in given:
        name, _, _ = option.partition("=")
        key = re.sub(r"\.parts\..*", ".parts", name.removeprefix("--config."))
        assert name in ("--config", "--workdir", "--coordinator", "--profile_steps") or key in keys, line


@pytest.mark.parametrize(("where", "line"), SCRIPTS)
def test_a_script_is_there_and_has_the_flags_it_is_given(where, line):
    _, name, *given = shlex.split(line, comments=True)
    source = (ROOT / name).read_text()
    if name.endswith(".sh"):  # What it is given goes to pytest.
        return
    own = given[: given.index("--")] if "--" in given else given
    # What follows `--` goes on to a script that this one names.
    named = [ROOT / "scripts" / other for other in re.findall(r"[a-z_]+\.py", source)]
    passed_to = source + "".join(path.read_text() for path in named if path.exists())
    for place, one in enumerate(given):
        option, text = one.partition("=")[0], source if place < len(own) else passed_to
        if not option.startswith("--") or option == "--":
            continue
        known = option.removeprefix("--config.") in ALL_KEYS or option == "--config"
        assert known or f'"{option.removeprefix("--")}"' in text or f'"{option}"' in text, f"{where}: {line}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_file_that_is_named_is_there(path):
    for name in re.findall(r"\b(?:tests|scripts|configs)/[a-z0-9_/]+\.(?:py|sh|png)\b", path.read_text()):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_key_in_running_text_is_one_of_a_configuration(path):
    for key in re.findall(r"`(?:--)?config\.([a-z_.]+)", path.read_text()):
        assert key in ALL_KEYS or key == "json", key


def test_every_key_is_documented_and_no_other():
    text = (ROOT / "docs/configuration.md").read_text()
    rows = [line.split("|")[1] for line in text[text.index("## The run") :].splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}
    assert documented == ALL_KEYS


def test_every_variant_is_documented():
    text = (ROOT / "docs/configuration.md").read_text()
    sections = dict(re.findall(r"^### `configs/(\w+)\.py`\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE))
    assert sorted(sections) == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    for name, section in sections.items():
        get_config = runs.load(ROOT / f"configs/{name}.py").get_config
        with pytest.raises(KeyError) as mistake:
            get_config("no-such-variant")
        offered = set(re.findall(r"[a-z_]+", str(mistake.value).split("use one of")[1]))
        default = inspect.signature(get_config).parameters["variant"].default
        assert set(re.findall(r"`:([a-z_]+)`", section)) == offered - {default}, name


def test_every_fault_and_note_is_documented_and_no_other():
    text = (ROOT / "docs/faults.md").read_text()
    tables, notes = text.split("## Notes")
    documented = re.findall(r"^\| `([a-z0-9_]+)` \|", tables, re.MULTILINE)
    assert sorted(documented) == sorted(FAULTS)
    notes, voxels = notes.split("## What only voxels can show")
    assert sorted(re.findall(r"^\| `([a-z0-9_]+)` \|", notes, re.MULTILINE)) == sorted(NOTES)
    for name in IN_VOXELS:
        assert f"`{name}`" in voxels


def test_the_readme_is_short_and_says_what_lungjax_is_not():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "Research software, not a medical device" in text


def _site(folder: Path, body: str, *, style: str = "") -> Path:
    (folder / "other").mkdir(parents=True)
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    (folder / "other/page.html").write_text('<h1 id="top">Other</h1><a name="old">old</a>')
    (folder / "style.css").write_text(style)
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other/page.html">a page</a><a href="other/page.html#top">an id</a>',
        '<a href="other/page.html#old">a name</a>',
        '<p id="here"><a href="#here">itself</a><a href="#">its top</a>',
        '<a href="https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX">another site</a><a href="mailto:a@b.org">mail</a>',
        '<img src="data:image/png;base64,AAAA"><link rel="stylesheet" href="style.css?v=1">',
    ],
)
def test_a_link_that_leads_somewhere(tmp_path, body):
    assert [*links.check_site(_site(tmp_path / "site", body))] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('<a href="no.html">x</a>', "is not there"),
        ('<a href="other/page.html#no">x</a>', "page.html has no such anchor"),
        ('<a href="#no">x</a>', "index.html has no such anchor"),
        ('<a href="../outside.html">x</a>', "leads out"),
        ('<a href="https://localhost">x</a>', "no address of a site"),
        ('<a href="https:///nowhere">x</a>', "no address of a site"),
        ('<a href="javascript:alert(1)">x</a>', "has the scheme"),
        ('<script src="https://cdn.example.org/a.js"></script>', "loaded from another site"),
        ('<img src="//cdn.example.org/a.png">', "loaded from another site"),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', "loaded from another site"),
        ('<img src="no.png">', "is not there"),
    ],
)
def test_a_broken_link_is_told(tmp_path, body, told):
    (fault,) = links.check_site(_site(tmp_path / "site", body))
    assert fault.startswith("index.html: ")
    assert told in fault


@pytest.mark.parametrize(
    "style", ['@import "https://a.example.org/a.css";', "p { background: url(//b.example.org/b.png) }"]
)
def test_a_style_that_fetches_from_elsewhere_is_told(tmp_path, style):
    (fault,) = links.check_site(_site(tmp_path / "site", "", style=style))
    assert "loaded from another site" in fault


def test_links_of_markdown(tmp_path):
    (tmp_path / "there.md").write_text("# A `title`, twice\n\n```\n# no heading\n```\n")
    good = "[a](there.md) [b](there.md#a-title-twice) `[no](link.md)`\n\n```\n[no](link.md)\n```"
    (tmp_path / "text.md").write_text(f"{good}\n[c](gone.md)\n[d](there.md#no-heading)\n![e](gone.png)\n")
    told = [line.split(": ", 1)[1] for line in links.check_markdown(tmp_path / "text.md", tmp_path)]
    assert told == [
        "gone.md: is not there",
        "there.md#no-heading: there.md has no such heading",
        "gone.png: is not there",
    ]
