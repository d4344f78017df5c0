"""The drawing page of `tfos-job serve` in a real browser: one training, one server and one browser for all."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.browser import Browser, Point, browsing, find_chromium
from tests.command import Command, starting, tally
from tests.unit.small_checkpoints import model_arrays
from tfos_job.config.augmentation import AugmentationConfig
from tfos_job.formats.form import Form
from tfos_job.input.augmentation import augment
from tfos_job.input.decoding import preprocess, to_float
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.synth import Hand, draw_characters, render_glyph
from tfos_job.networks import registry
from tfos_job.run import checkpoints

CHARACTERS = "大山口木中永"
MODEL = {"model_name": "hanzi_net", "num_classes": len(CHARACTERS), "image_size": 32, "keep_prob": 0.9}
NUM_HANDS = 60
NUM_COPIES, NUM_EPOCHS = 3, 4
AUGMENTATION = AugmentationConfig(random_rotation=5.0, random_zoom=0.1, stroke_width=1.5)

# In percent of the field.
STROKES: dict[str, list[list[Point]]] = {
    "大": [[(20, 38), (80, 36)], [(50, 14), (49, 40), (38, 65), (18, 84)], [(50, 40), (62, 64), (82, 84)]],
    "山": [[(50, 18), (50, 76)], [(22, 42), (22, 76), (79, 76)], [(79, 40), (79, 78)]],
    "口": [[(28, 28), (28, 76)], [(28, 28), (74, 28), (74, 76)], [(28, 74), (74, 74)]],
}
POINTERS = {"大": "mouse", "山": "touch", "口": "pen"}

ANSWERED = "document.querySelector('#candidates li') && !document.querySelector('#candidates.old')"
SHOWN = "JSON.stringify([...document.querySelectorAll('#candidates button')].map((b) => b.innerText.split(/\\s+/)))"
INK = """(() => {
    const canvas = document.querySelector('canvas');
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let inked = 0;
    for (let at = 0; at < data.length; at += 4) inked += data[at] < 100 && data[at + 3] > 127;
    return [canvas.width, inked / canvas.width ** 2];
})()"""


# --- what all of them stand on ---------------------------------------------------------------------------------------


def glyphs(hands: range) -> tuple[list[np.ndarray], list[int]]:
    """Each character by each of the synthetic hands, uint8 [h, w], and its class."""
    drawn, pixels, labels = draw_characters(CHARACTERS), [], []
    for writer in hands:
        hand = Hand.of(0, writer)
        for label in range(len(CHARACTERS)):
            pixels.append(render_glyph(drawn[label], hand, np.random.default_rng([writer, label])))
            labels.append(label)
    return pixels, labels


@pytest.fixture(scope="module")
def train_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network knows the six characters in many hands."""
    found, labels = glyphs(range(NUM_HANDS))
    form = Form(image_size=32)
    images = tf.concat([to_float(preprocess(one[np.newaxis, :, :, np.newaxis], form)) for one in found], axis=0)
    indices = np.arange(len(found))
    copies = [augment(images, tf.constant(copy, tf.int64), indices, AUGMENTATION) for copy in range(NUM_COPIES)]
    keras.utils.set_random_seed(1)
    model = registry.build(**MODEL, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(tf.concat(copies, axis=0), np.array(labels * NUM_COPIES), batch_size=24, epochs=NUM_EPOCHS, verbose=0)
    tally["trainings"] += 1
    tally["images"] += NUM_EPOCHS * NUM_COPIES * len(labels)
    folder = tmp_path_factory.mktemp("run")
    meta: dict[str, Any] = {"model": MODEL, "characters": CHARACTERS, "charset_digest": "", "dataset_digest": ""}
    meta |= {"input_position": {}, "metrics": {}}
    checkpoints.publish(RunLayout(str(folder)), 180, model_arrays(model), meta)
    return folder


@pytest.fixture(scope="module")
def chromium() -> str:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: `apt-get install chromium`, or set CHROMIUM to the path of one")
    return program


@pytest.fixture(scope="module")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(chromium, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(chromium: str, train_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    log = tmp_path_factory.mktemp("serve") / "access.jsonl"
    with starting(Command) as start:
        models = [word for name in ("first", "second") for word in ("--model", f"{name}={train_dir}")]
        command = start("serve", *models, "--port", 0, "--access_log", log)
        command.wait_for_line("Ready at ")
        yield command.wait_until(lambda: command.stdout and command.result())["url"]


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Browser]:
    """The page, empty and in English, at a desk; nothing that it does may break its policy or ask somebody else."""
    browser.look(1200, 800)
    browser.speak("en-GB,en")
    browser.open("about:blank")
    browser.requests.clear()
    browser.open(url)
    yield browser
    browser.get("localStorage.clear()")
    assert browser.complaints == []
    assert all(one.startswith((url, "data:", "about:")) for one in browser.requests)


def draw(page: Browser, strokes: Sequence[Sequence[Point]], pointer: str = "mouse") -> None:
    """Draws in the field, and waits for the answer to all of it."""
    for stroke in strokes:
        left, top, width, height = page.box("canvas")
        page.draw([(left + x * width / 100, top + y * height / 100) for x, y in stroke], pointer=pointer)
    page.wait(ANSWERED)


def candidates(page: Browser) -> list[list[str]]:
    """Character, share and percent sign of each candidate."""
    return json.loads(page.get(SHOWN))


def seen(page: Browser) -> np.ndarray:
    """The picture that the network saw."""
    data = page.get("document.querySelector('#seen-picture').src").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def photograph() -> np.ndarray:
    """A 中 in a corner of a sheet."""
    glyph = glyphs(range(NUM_HANDS, NUM_HANDS + 1))[0][CHARACTERS.index("中")]
    sheet = np.full((300, 240), 255, np.uint8)
    sheet[60 : 60 + glyph.shape[0], 100 : 100 + glyph.shape[1]] = glyph
    return sheet


# --- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", STROKES)
def test_a_drawn_character_is_read(page: Browser, character: str) -> None:
    page.look(1200, 800, touch=POINTERS[character] == "touch")
    strokes = STROKES[character]
    draw(page, strokes, POINTERS[character])
    found = candidates(page)
    assert len(found) == 5
    assert found[0][0] == character
    assert float(found[0][1]) > 50
    assert sum("predict?top_k=5&seen=1" in one for one in page.requests) == len(strokes)
    assert seen(page).shape == (32, 32)
    assert (seen(page) < 128).any()
    assert page.text("#seen-words") == "What the network saw: 32 × 32 pixels"
    assert page.text("#spoken").startswith(f"Most probable: {character} ")
    assert page.text("#field-content") == f"Your drawing has {len(strokes)} strokes."
    assert page.get("document.querySelector('#candidates .name').lang") == "zh-Hans"
    widths = page.get("[...document.querySelectorAll('.bar span')].map((bar) => parseFloat(bar.style.width))")
    assert widths == sorted(widths, reverse=True)


def test_another_network_can_be_asked(page: Browser) -> None:
    draw(page, STROKES["大"])
    assert page.text("#model").startswith("Model first, step 180, digest ")
    assert page.wait("document.querySelector('#network').length") == 2
    page.get("document.querySelector('#network').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelector('#model').innerText.startsWith('Model second, ')")
    assert candidates(page)[0][0] == "大"


def test_nothing_is_lost_when_the_window_changes(page: Browser) -> None:
    draw(page, STROKES["大"][:2])
    before, saw = page.get(INK), seen(page)
    for size in ({"width": 740, "height": 360, "scale": 3}, {"width": 360, "height": 740, "scale": 2}):
        page.look(**size, touch=True)  # type: ignore[arg-type]
        page.wait(
            f"devicePixelRatio === {size['scale']} && canvas.width === Math.round(canvas.clientWidth * {size['scale']})"
        )
        inked = page.get(INK)[1]
        assert inked == pytest.approx(before[1], rel=0.1)
    page.click("#language")  # anything that draws again
    np.testing.assert_array_equal(seen(page), saw)
    draw(page, STROKES["大"][2:], "touch")
    assert candidates(page)[0][0] == "大"


def test_undo_and_clear_go_back_and_forth(page: Browser) -> None:
    assert page.get("document.querySelector('#undo').disabled && document.querySelector('#clear').disabled")
    draw(page, STROKES["山"])
    whole = seen(page)
    page.click("#undo")
    page.wait(ANSWERED)
    assert (seen(page) != whole).any()
    draw(page, STROKES["山"][2:])
    np.testing.assert_array_equal(seen(page), whole)
    page.click("#clear")
    assert candidates(page) == []
    assert page.text("#nothing") == "Candidates come after each stroke."
    assert page.is_seen("#hint")
    page.click("#undo")
    page.wait(ANSWERED)
    np.testing.assert_array_equal(seen(page), whole)


def test_a_newer_stroke_cancels_the_question_before(page: Browser) -> None:
    page.get("""window.asked = []; window.fetch = (url, {signal}) => new Promise((_, fail) => {
        asked.push(signal); signal.addEventListener('abort', () => fail(signal.reason)); }), 0""")
    for stroke in STROKES["口"]:
        left, top, width, height = page.box("canvas")
        page.draw([(left + x * width / 100, top + y * height / 100) for x, y in stroke])
    assert page.get("asked.map((signal) => signal.aborted)") == [True, True, False]
    page.click("#clear")
    assert page.get("asked.map((signal) => signal.aborted)") == [True, True, True]
    assert not page.is_seen("#problem")


# --- candidates and keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_secure", [True, False])
def test_a_candidate_is_copied_also_where_there_is_no_https(page: Browser, is_secure: bool) -> None:
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.get("navigator.clipboard.writeText('')")
    page.get("window.copies = 0; document.addEventListener('copy', () => { copies += 1; }), 0")
    if not is_secure:
        page.get(
            "window.board = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', {value: undefined}), 0"
        )
    draw(page, STROKES["口"])
    second = candidates(page)[1][0]
    page.click("#candidates li:nth-child(2) button")
    assert page.wait("document.querySelector('#told').innerText") == f"{second} is copied."
    assert page.get("copies") == (0 if is_secure else 1)
    if is_secure:
        assert page.get("navigator.clipboard.readText()") == second
    assert page.get("document.activeElement === document.querySelector('#candidates li:nth-child(2) button')")


def test_the_keyboard_does_everything_but_drawing(page: Browser) -> None:
    draw(page, STROKES["大"])
    page.get("document.querySelector('#language').focus()")
    reached = []
    for _ in range(8):
        page.press("Tab")
        reached.append(page.get("document.activeElement.id || document.activeElement.parentElement.parentElement.id"))
        outline = page.get("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", reached
    assert reached == ["undo", "clear", "choose", *["candidates"] * 5]
    page.press("Enter")
    assert page.wait("document.querySelector('#told').innerText")
    page.press("z", ctrl=True)
    assert page.wait("document.querySelector('#field-content').innerText.includes('2 strokes')")
    page.press("Escape")
    assert page.text("#field-content") == "The field is empty."


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_is_read_and_its_ink_framed(page: Browser, tmp_path: Path, way: str) -> None:
    path = tmp_path / "中.png"
    path.write_bytes(png(photograph()))
    if way == "choose":
        page.choose("#file", path)
    elif way == "drop":
        page.drop("#paper", path)
    else:
        data = base64.b64encode(path.read_bytes()).decode()
        page.get(f"""(() => {{
            const bytes = Uint8Array.from(atob('{data}'), (one) => one.charCodeAt(0));
            const board = new DataTransfer();
            board.items.add(new File([bytes], '中.png', {{type: 'image/png'}}));
            document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: board}}));
        }})()""")
    page.wait(ANSWERED)
    assert candidates(page)[0][0] == "中"
    assert page.text("#field-content") == "Your picture: 中.png."
    blue = "[...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    assert page.wait(f"{blue}.filter((level, at, all) => at % 4 === 2 && level > all[at - 2] + 90).length > 200")
    draw(page, STROKES["口"])
    assert candidates(page)[0][0] == "口"


def test_what_is_no_picture_is_said_in_words(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "letter.png"
    path.write_bytes(b"Dear reader")
    page.choose("#file", path)
    page.wait("!document.querySelector('#problem').hidden")
    assert page.text("#problem").startswith("The server refused this: ")
    assert "PNG, JPEG or GIF" in page.text("#problem")
    assert not page.is_seen("#again")
    assert page.text("#hint") == "letter.png"
    page.get("document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()})), 0")
    assert page.text("#problem") == "There is no picture file in that. Drop or paste a PNG, JPEG or GIF."
    page.click("#clear")
    assert not page.is_seen("#problem")


# --- a server that does not answer -----------------------------------------------------------------------------------


def test_a_full_server_is_asked_again_by_itself(page: Browser) -> None:
    page.get("""window.really = window.fetch; window.fetch = async (...asked) => {
        window.fetch = really;
        return new Response('{"error": "full"}', {status: 429, headers: {'Retry-After': '1'}}); }, 0""")
    left, top, *_ = page.box("canvas")
    page.draw([(left + 50, top + 50), (left + 200, top + 60)])
    assert page.wait("document.querySelector('#problem-text').textContent") == "The server is busy. Next try in 1 s."
    page.wait(ANSWERED)
    assert not page.is_seen("#problem")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (413, '{"error": "more than 16 MB"}', "The picture is too large for the server. more than 16 MB"),
        (415, '{"error": "no."}', "That is no picture that can be read. no."),
        (401, "{}", "The server asks for a key. Load the page again, and give the key as the password."),
        (500, "<html>", "The server failed (500)."),
        (200, "<html>", "What came is not an answer of this server. Is another program at this address?"),
        (404, "{}", "What came is not an answer of this server. Is another program at this address?"),
    ],
)
def test_every_refusal_has_words(page: Browser, status: int, body: str, words: str) -> None:
    page.get(f"window.fetch = async () => new Response({json.dumps(body)}, {{status: {status}}}), 0")
    left, top, *_ = page.box("canvas")
    page.draw([(left + 50, top + 50)])
    page.wait("!document.querySelector('#problem').hidden")
    assert page.text("#problem-text") == words


def test_a_server_that_is_away_can_be_asked_again(page: Browser) -> None:
    @contextlib.contextmanager
    def offline() -> Iterator[None]:
        network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.call("Network.emulateNetworkConditions", offline=True, **network)
        yield
        page.call("Network.emulateNetworkConditions", offline=False, **network)

    with offline():
        left, top, *_ = page.box("canvas")
        page.draw([(left + 50, top + 50), (left + 200, top + 60)])
        page.wait("!document.querySelector('#problem').hidden")
        assert page.text("#problem-text").startswith("The server cannot be reached.")
        assert page.get("document.querySelector('#problem').getAttribute('role')") == "alert"
    page.click("#again")
    page.wait(ANSWERED)
    assert not page.is_seen("#problem")


# --- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_phone_shows_all_of_it(page: Browser, url: str, dark: bool) -> None:
    page.look(360, 640, scale=2, dark=dark, touch=True)
    page.speak("zh-TW,zh,en")
    page.open(f"{url}?")
    draw(page, STROKES["山"], "touch")
    assert candidates(page)[0][0] == "山"
    assert page.get("document.documentElement.scrollWidth") == 360
    assert page.text("h1") == "手写汉字识别"
    assert page.get("document.documentElement.lang") == "zh-Hans"
    _, top, _, height = page.box("#candidates li")
    assert page.get("scrollY") == 0
    assert top + height < 640
    page.get("window.buttons = [...document.querySelectorAll('button')].filter((one) => one.checkVisibility()), 0")
    assert page.get("Math.min(...buttons.map((one) => one.getBoundingClientRect().height))") >= 44
    ground = [int(level) for level in re.findall(r"\d+", page.get("getComputedStyle(document.body).backgroundColor"))]
    assert (max(ground) < 60) == dark
    page.click("#language")
    assert page.text("h1") == "Draw a character"
    page.open(f"{url}??")
    assert page.text("h1") == "Draw a character"
    page.wait("!document.querySelector('#which').hidden")  # it came when a pen may have been down already
    top = page.box("canvas")[1]
    page.get("document.querySelector('#which').hidden = true")
    assert page.box("canvas")[1] == top
