"""The page of `restok report`, opened from the disk in a browser as a person would, on a phone and on a desk, by day and by night."""

import re

import pytest
from browser import Browser
from conftest import SAMPLES, restok

CLOTHES = SAMPLES / "fashion-mnist"
SCREENS = [(width, height, scheme) for width, height in ((390, 844), (1440, 900)) for scheme in ("light", "dark")]
MODELS = ("--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--devices", "cpu", "--device-threads", 1)
SAMPLE_COUNT = 30


@pytest.fixture(scope="module")
def page(output, tmp_path_factory):
    """A report about the sample's tables, a generated set, a training and a sweep."""
    root = tmp_path_factory.mktemp("report")
    restok("generate", *MODELS, "--output", root / "set", "--count", SAMPLE_COUNT, "--pictures", "npz", "--guidance-scale", 2, "--batch-size", 10)
    restok("sweep", *MODELS, "--output", root / "sweep", "--guidance-scale", "1,3", "--count", 6, "--pictures", "png", "--batch-size", 6)
    restok(
        *("train-tokenizer", "--preset", "tiny", "--source", CLOTHES / "images", "--validation-source", CLOTHES / "images"),
        *("--output", root / "run", "--steps", 4, "--warmup-steps", 1, "--batch-size", 4, "--device", "cpu", "--device-threads", 1),
        *("--log-every", 1, "--validate-every", 2, "--sheet-every", 2, "--save-every", 2, "--shuffle-buffer", 8),
    )
    restok("report", output, root / "set", root / "run", root / "sweep", "--to", root / "report.html")
    return root / "report.html"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(params=SCREENS, ids=lambda screen: "-".join(map(str, screen)))
def opened(request, browser, page):
    """The browser with the page open, and nothing in its logs but what the page caused."""
    browser.log("browser"), browser.log("performance")
    browser.open(page, *request.param)
    return browser


def test_the_page_stands_for_itself(page):
    text = page.read_text()
    assert "<script" not in text
    # Pictures are within the page, links lead within it, and the style sheet names nothing.
    addresses = re.findall(r'(?:src|href|srcset|action|data)="([^"]{0,30})', text)
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text and "@import" not in text


def test_it_is_quiet_and_asks_for_nothing(opened, page):
    assert opened.run("return document.readyState") == "complete"
    assert [entry for entry in opened.log("browser") if entry["level"] == "SEVERE"] == []
    # The picture of a tab that the page itself brings may be counted as a request.
    assert {address for address in opened.requests(page) if not address.startswith("data:")} == {page.resolve().as_uri()}


def test_every_part_is_there_with_its_heading(opened):
    parts = opened.run("""
        return [...document.querySelectorAll('article')].map(article =>
            [article.querySelector('h2').innerText, [...article.querySelectorAll('h3')].map(heading => heading.innerText)])
    """)
    assert [headings for _, headings in parts] == [
        ["Row counts", "Use of the codebook", "Rates of the runs", "Provenance"],
        ["Row counts", "Contact sheet", "Use of the codebook", "Rates of the runs", "Provenance"],
        ["State", "Curves", "Sheets", "Provenance"],
        ["Sets of the sweep", "Provenance"],
    ]
    assert [name for name, _ in parts][1:] == ["set", "run", "sweep"]


def test_the_row_counts_are_those_of_the_output(opened, inspection):
    tiles = opened.run("""
        return [...document.querySelectorAll('article:first-of-type .tiles li')].map(tile => tile.innerText.split('\\n'))
    """)
    numbers = {name.split(" (")[0]: number for number, name in tiles}
    row_counts = inspection["books"]
    rejected = sum(row_counts["rejected"].values())
    assert {name: numbers[name] for name in ("listed", "written", "rejected")} == {
        "listed": str(row_counts["listed"]),
        "written": str(row_counts["written"]),
        "rejected": str(rejected),
    }
    text = opened.run("return document.querySelector('article:first-of-type').innerText")
    for named in (*row_counts["rejected"], "hills_07_cut_in_half", inspection["plan"], inspection["settings"]["tokenizer"]["sha256"]):
        assert named in text


def test_charts_have_lines_and_numbers(opened):
    charts = opened.run("""
        return [...document.querySelectorAll('figure.chart')].map(chart => ({
            title: chart.querySelector('figcaption').innerText,
            label: chart.querySelector('svg[role=img]').getAttribute('aria-label'),
            width: chart.querySelector('svg').getBoundingClientRect().width,
            told: chart.querySelectorAll('svg title').length,
            lines: [...chart.querySelectorAll('path.line')].map(line => line.getTotalLength()),
            bars: [...chart.querySelectorAll('rect.part')].map(bar => bar.getBoundingClientRect().width),
        }))
    """)
    titles = [chart["title"] for chart in charts]
    expected = ("Codes used", "Entropy", "Images a second", "Share of the time that each stage was busy", "Loss")
    assert set(expected) <= {title.removesuffix(" (logarithmic)") for title in titles}
    for chart in charts:
        assert chart["label"] and chart["told"] and chart["width"] > 250, chart
        assert any(length > 50 for length in chart["lines"]) or any(width > 5 for width in chart["bars"]), chart


def test_pictures_are_seen(opened):
    pictures = opened.run("return [...document.images].map(image => [image.naturalWidth, image.width, image.alt])")
    assert all(natural > 0 and shown > 0 and alt for natural, shown, alt in pictures)
    # The whole set, six of each point of the sweep, two sheets of the training, and the newest of them large.
    assert len(pictures) == SAMPLE_COUNT + 2 * 6 + 2 + 1
    classes = opened.run("return [...document.querySelectorAll('#output-2 .class figcaption')].map(name => name.innerText)")
    assert len(classes) == 10 and "ankle-boot" in classes


def too_wide(browser):
    """The width of the page where it is more than that of the screen, and what reaches beyond the screen without a box that scrolls.

    The screen's own number, for on a phone the window says that it is as wide as what is in it."""
    wide = browser.run("return document.documentElement.scrollWidth")
    beyond = browser.run(f"""
        return [...document.querySelectorAll('body *')].filter(element =>
            element.getBoundingClientRect().right > {browser.width} + 1 && !element.closest('.scroll, .strip')).map(element => element.outerHTML.slice(0, 200))
    """)
    return ([wide] if wide > browser.width else []) + beyond


def test_the_page_is_as_wide_as_the_screen(opened):
    assert too_wide(opened) == []


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: "-".join(map(str, screen)))
def test_a_page_that_is_too_wide_would_be_seen(browser, tmp_path, screen):
    path = tmp_path / "wide.html"
    path.write_text('<!DOCTYPE html><meta name="viewport" content="width=device-width, initial-scale=1"><p style="width: 2000px">wide</p>')
    browser.open(path, *screen)
    width, *elements = too_wide(browser)
    assert width >= 2000 and len(elements) == 1 and elements[0].startswith("<p")


def test_day_and_night_differ_and_both_can_be_read(browser, page):
    def colours(scheme):
        browser.open(page, 1440, 900, scheme)
        return browser.run("""
            const style = getComputedStyle(document.querySelector('section'))
            const numbers = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number)
            return [numbers(style.color), numbers(style.backgroundColor)]
        """)

    def luminance(colour):
        linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    day, night = colours("light"), colours("dark")
    assert luminance(day[1]) > 0.8 and luminance(night[1]) < 0.05
    for ink, paper in (day, night):
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 7
