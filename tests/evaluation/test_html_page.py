"""Templates of pages: nothing that they are given is HTML, and no template says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lungjax
from lungjax.evaluation.plots import html_page

PACKAGE = Path(lungjax.__file__).parent
TEMPLATES = sorted(PACKAGE.rglob("*.html"))


def test_a_header_of_dicom_is_text(tmp_path: Path):
    """As an element's text and in a quoted attribute, from `picture` of the parts; None is a dash."""
    hostile = """<script>alert("1")</script> O'Neil & Sons" onload="alert(2)"""
    path = html_page.write(
        tmp_path / "page.html",
        "evaluation/run_report.html",
        title=hostile,
        **dict.fromkeys(("name", "task", "step", "steps", "done"), hostile),
        curves={hostile: hostile},
        features={hostile: hostile},
        last_values=[{"name": hostile, "figures": [None, {"value": hostile, "aside": hostile}]}],
        evaluations=[],
        examples={},
        origin={hostile: hostile},
        configuration={hostile: None},
    )
    content = path.read_text()
    shown = "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; O&#39;Neil &amp; Sons&#34; onload=&#34;alert(2)"
    assert "alert(" not in content.replace(shown, "")
    assert f"<title>{shown}</title>" in content
    assert f'<img alt="{shown} over the training steps' in content
    assert f'src="{shown}"' in content
    assert f"<dt>{shown}</dt><dd>-</dd>" in content


def test_a_template_that_lacks_a_name_writes_nothing(tmp_path: Path):
    with pytest.raises(Exception, match="'name' is undefined"):
        html_page.write(tmp_path / "page.html", "evaluation/run_report.html", title="t")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("template", TEMPLATES, ids=[path.name for path in TEMPLATES])
def test_no_template_trusts_what_it_is_given(template: Path):
    code = " ".join(re.findall(r"\{[{%].*?[%}]\}", template.read_text(), flags=re.DOTALL))
    assert code
    assert not re.search(r"\|\s*(safe|xmlattr|urlize)\b|autoescape|Markup|forceescape", code)
    assert not re.search(r"=\{\{", template.read_text()), "an attribute without quotes: a blank would end it"


def test_only_the_pages_own_style_and_script_are_not_escaped():
    trusting = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if "Markup(" in line
    ]
    assert len(trusting) == 1
    wanted = r"evaluation/plots/html_page\.py: .*style=Markup\(style\), script=.* Markup\(script\),.*"
    assert re.fullmatch(wanted, trusting[0])
