"""The page: well-formed, loads nothing, escapes what data chose, shows what it should."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from dropserve_models.evaluation import Report, evaluate
from dropserve_models.evaluation.learning import LearningCurve
from dropserve_models.evaluation.page import as_html
from dropserve_models.evaluation.text import as_text
from dropserve_models.model import Model
from support.engines import Array, model_of
from support.onnx_models import mlp

RANDOM = np.random.default_rng(0)
X: Array = RANDOM.normal(size=(40, 4)).astype(np.float32)
CURVE = LearningCurve([1, 2, 3], [3.0, 2.0, 1.5], [3.1, 2.2, 2.1], [0.1, 0.4, 0.5], "r2", 3)
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "<script>alert('x')</script>&\"\x1b[31m$\\frac{1}{0}$ 数"


class Page(HTMLParser):
    """Holds what a page consists of, and fails where tags don't nest."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(data.decode())
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def named(model: Model, outputs: tuple[str, ...]) -> Model:
    """The model, its outputs called otherwise."""
    model.info = replace(model.info, output_names=outputs)
    return model


def classified() -> Report:
    model = named(model_of(mlp([4, 16, 3], [0.0, 0.4], last="Softmax").onnx()), ("a", HOSTILE, "c"))
    report = evaluate(model, X, RANDOM.integers(0, 3, 40), passes=20, out_of_distribution=5 * X)
    return replace(report, source=HOSTILE, out_of_distribution=HOSTILE, notes=(HOSTILE,))


def regressed() -> Report:
    model = named(model_of(mlp([4, 16, 1], [0.0, 0.4]).onnx()), (HOSTILE,))
    return replace(evaluate(model, X, RANDOM.normal(size=40), passes=20), source="rows.csv")


REPORTS = {"classes": classified, "regression": regressed}


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    return REPORTS[request.param]()


@pytest.fixture(scope="module")
def data(report: Report) -> bytes:
    """The page: drawing it takes a second, looking at it none."""
    return as_html(report, CURVE)


def test_the_page_is_well_formed_and_loads_nothing(data: bytes) -> None:
    page = Page(data)
    assert not {"script", "iframe", "object", "embed", "link", "img", "image"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert value.startswith("#")
    style = data.decode()[: data.decode().index("</style>")]
    assert "@import" not in style
    assert all(found.startswith("#") for found in re.findall(r"url\(['\"]?([^)]*)", data.decode()))
    # Addresses are the names of XML's vocabularies alone.
    addresses = set(re.findall(r"https?://[^\s\"'<>)]*", data.decode()))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_what_data_chose_is_shown_as_it_is(report: Report, data: bytes) -> None:
    assert b"alert('x')</script>" not in data
    assert b"\x1b" not in data
    assert "<script>alert('x')</script>" in Page(data).text
    assert "\x1b" not in as_text(report)
    assert all(line.isprintable() for line in as_text(report).splitlines())


def test_identifiers_of_the_pictures_are_their_own(data: bytes) -> None:
    page = Page(data)
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))


def test_colours_are_the_page_s(data: bytes) -> None:
    """Light and dark: nothing in a picture has a colour of its own."""
    text = data.decode()
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert pictures
    for picture in pictures:
        assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]{3,6}", picture)
        assert "var(--ink)" in picture
        assert "DejaVu" not in picture
    assert "prefers-color-scheme: dark" in text


def test_the_same_report_gives_the_same_bytes(report: Report, data: bytes) -> None:
    assert as_html(report, CURVE) == data


def titles(data: bytes) -> list[str]:
    return re.findall(r"<h3>([^<]*)</h3>", data.decode())


def test_the_pictures_that_are_expected(report: Report, data: bytes) -> None:
    classes = [
        "Reliability diagram", "Rejection curve", "Uncertainty and errors", "In and out of distribution",
    ]  # fmt: skip
    numbers = [
        "Prediction against truth", "Coverage", "Error against uncertainty", "Rejection curve",
        "Uncertainty and errors",
    ]  # fmt: skip
    expected = numbers if report.model.task == "regression" else classes
    assert titles(data) == [*expected, "Learning curves"]


def test_without_uncertainty_there_is_a_page_all_the_same() -> None:
    plain = model_of(mlp([4, 16, 1], [0.0, 0.0]).onnx())
    data = as_html(evaluate(plain, X, RANDOM.normal(size=40)))
    assert titles(data) == ["Prediction against truth"]
    assert "No Monte Carlo part" in Page(data).text
    assert "the model predicts no noise" in Page(data).text


@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (1, 3), (2, 1), (7, 3)])
def test_few_rows(rows: int, outputs: int) -> None:
    model = model_of(mlp([4, 16, outputs], [0.0, 0.4], last="Softmax" if outputs > 1 else "").onnx())
    y = np.zeros(rows, int) if outputs > 1 else np.ones(rows)
    report = evaluate(model, X[:rows], y, passes=5, out_of_distribution=X[:rows])
    Page(as_html(report, LearningCurve([1], [1.0], None, None, "r2", None)))
    assert as_text(report)


def test_the_figures_are_in_the_table_with_their_errors(report: Report, data: bytes) -> None:
    shown = Page(data).text
    figure = next(iter(report.outputs[0].figures["monte_carlo"].values()))
    assert figure.value is not None
    assert figure.standard_error is not None
    found = re.search(r"(\d+\.\d+) ± (\d+\.\d+)", as_text(report))
    assert found is not None
    assert f"{found[1]} ± {found[2]}" in shown
    assert float(found[2]) == pytest.approx(
        next(iter(report.outputs[0].figures["deterministic"].values())).standard_error, rel=0.05
    )
