"""From characters to answers, by the commands that a user types: `convert`, `train`, `export`, `serve`, and its page.

One training, one export and one browser for all; one server for the page, and one for callers without mercy.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, Point, browsing, find_chromium
from tests.callers import JSON, KEY, PNG, Client, ask_until_closed, cross
from tests.command import Command, run, starting
from tests.unit.small_checkpoints import META, model_arrays
from tfos_job import Predictor
from tfos_job.config import ExportConfig
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.export import export
from tfos_job.local_jobs.synth import Hand, draw_characters, render_glyph, write_writer
from tfos_job.networks import registry
from tfos_job.run import checkpoints

pytestmark = pytest.mark.cluster

CHARACTERS = "大山口木中永"
NUM_HANDS = 24
STEPS, BATCH_SIZE, SIDE = 120, 32, 32
NETWORK = ("--model_name", "hanzi_net", "--image_size", SIDE, "--learning_rate", 4e-3)
NETWORK += ("--learning_rate_decay_type", "cosine")
AUGMENTATION = ("--random_rotation", 5, "--random_zoom", 0.1, "--stroke_width", 1.5)
NUM_CLIENTS = 8

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


@pytest.fixture(scope="module")
def train_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the six characters in many hands."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "gnt").mkdir()
    drawings = draw_characters(CHARACTERS)
    for writer in range(NUM_HANDS):
        write_writer(str(folder / "gnt" / f"{writer}.gnt"), drawings, CHARACTERS, seed=0, writer=writer)
    (folder / "characters.txt").write_text(CHARACTERS, "utf-8")
    dataset = ("--dataset_dir", folder / "dataset")
    run("convert", *dataset, "--gnt_dir", folder / "gnt", "--charset", folder / "characters.txt")
    run(
        "train", *dataset, "--train_dir", folder / "run", *NETWORK, *AUGMENTATION, "--batch_size", BATCH_SIZE,
        "--max_number_of_steps", STEPS,
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def export_dir(train_dir: Path) -> Path:
    folder = train_dir.parent / "exports"
    run("export", "--train_dir", train_dir, "--export_dir", folder)
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
def url(chromium: str, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    log = tmp_path_factory.mktemp("serve") / "access.jsonl"
    with starting(Command) as start:
        command = start("serve", "--export_dir", export_dir, "--port", 0, "--access_log", log)
        yield ready(command)["url"]


def ready(command: Command) -> Any:
    """What a server says when it answers."""
    command.wait_until(lambda: "\n" in command.stdout)
    return command.result()


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
    """A 中 in a corner of a sheet, in a hand that the network has not seen."""
    glyph = render_glyph(draw_characters("中")[0], Hand.of(0, NUM_HANDS), np.random.default_rng(0))
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
    assert page.text("#model").startswith(f"Model default, step {STEPS}, digest ")
    assert page.text("#spoken").startswith(f"Most probable: {character} ")
    assert page.text("#field-content") == f"Your drawing has {len(strokes)} strokes."
    assert page.get("document.querySelector('#candidates .name').lang") == "zh-Hans"
    widths = page.get("[...document.querySelectorAll('.bar span')].map((bar) => parseFloat(bar.style.width))")
    assert widths == sorted(widths, reverse=True)


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
    top = page.box("canvas")[1]
    # What there is with two networks comes late, when a pen may be down already.
    page.get("document.querySelector('#which').hidden = false")
    assert page.box("canvas")[1] == top


# --- programs --------------------------------------------------------------------------------------------------------


def publish_another(train_dir: str) -> None:
    """The run's next checkpoint, with other weights."""
    info, _ = checkpoints.read(RunLayout(train_dir), "last")
    arrays = model_arrays(registry.build(**info.model, seed=2))
    document = {key: value for key, value in info.document.items() if key in META}
    checkpoints.publish(RunLayout(train_dir), STEPS + 1, arrays, document)


def part(data: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data + b"\r\n"


def check_bodies(client: Client, expected: dict[str, Any]) -> None:
    """Every way of asking gives the answer of a `Predictor`."""
    picture = cross()
    b64 = {"b64": base64.b64encode(picture).decode()}
    drawing = {"strokes": [[[1, 5], [9, 5]], [[5, 1], [5, 9]]], "size": [10, 10]}
    asked: list[tuple[bytes | str, str]] = [
        (picture, PNG),
        (part(picture) + part(picture) + b"--x--\r\n", "multipart/form-data; boundary=x"),
        (json.dumps({"images": [b64, b64]}), JSON),
    ]
    for body, kind in asked:
        status, answer = client.ask("/predict", body, kind)
        assert status == 200
        for prediction in answer["predictions"]:
            assert prediction["box"] == expected["box"]
            assert [guess["character"] for guess in prediction["top"]] == [g["character"] for g in expected["top"]]
            found = [guess["probability"] for guess in prediction["top"]]
            assert found == pytest.approx([guess["probability"] for guess in expected["top"]], abs=1e-5)
    status, answer = client.ask("/predict?seen=1&top_k=5", json.dumps(drawing), JSON)
    (prediction,) = answer["predictions"]
    assert (status, len(prediction["top"])) == (200, 5)
    assert Image.open(io.BytesIO(base64.b64decode(prediction["seen"]))).size == (SIDE, SIDE)
    assert client.ask("/predict", b"no picture")[0] == 400


@dataclass(frozen=True)
class Guarded:
    """A server that asks for a key and has little room, of an export and of a run, which are copies in its folder."""

    folder: Path
    command: Command

    @property
    def url(self) -> str:
        return str(ready(self.command)["url"])

    def answered(self) -> list[dict[str, Any]]:
        """The lines of the access log about pictures that had an answer."""
        lines = [json.loads(line) for line in (self.folder / "log").read_text("utf-8").splitlines()]
        return [line for line in lines if (line["path"], line["status"]) == ("/predict", 200)]


@pytest.fixture(scope="module")
def guarded(train_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(KEY)
    runs, exports = (shutil.copytree(found, folder / found.name) for found in (train_dir, export_dir))
    flags: tuple[object, ...] = ("--model", f"new={exports}", "--model", f"run={runs}", "--host", "localhost")
    flags += ("--port", 0, "--api_key_file", folder / "keys", "--access_log", folder / "log")
    flags += ("--max_queue", 2, "--max_images", 2, "--max_batch_size", 1)
    flags += ("--reload_seconds", 0.1, "--request_timeout", 600, "--stop_timeout", 600)
    with starting(Command) as start:
        yield Guarded(folder, start("serve", *flags))


def test_another_network_can_be_asked_in_the_page(guarded: Guarded, browser: Browser) -> None:
    (guarded.folder / "中.png").write_bytes(png(photograph()))
    browser.call("Network.setExtraHTTPHeaders", headers={"X-API-Key": KEY})
    browser.look(1200, 800)
    browser.speak("en-GB,en")
    browser.open(guarded.url)
    browser.choose("#file", guarded.folder / "中.png")
    browser.wait(ANSWERED)
    assert browser.text("#model").startswith(f"Model new, step {STEPS}, digest ")
    assert browser.wait("document.querySelector('#network').length") == 2
    browser.get("document.querySelector('#network').focus()")
    browser.press("ArrowDown")
    browser.wait("document.querySelector('#model').innerText.startsWith('Model run, ')")
    assert candidates(browser)[0][0] == "中"
    browser.call("Network.setExtraHTTPHeaders", headers={})
    assert browser.complaints == []


def test_it_answers_refuses_reloads_and_ends_without_losing_a_request(guarded: Guarded) -> None:
    command, exports, runs = guarded.command, guarded.folder / "exports", str(guarded.folder / "run")
    predictor = Predictor(runs)
    known = {"digest": predictor.digest, "step": STEPS}  # the same of both
    assert ready(command)["models"] == [{"model": "new", **known}, {"model": "run", **known}]
    port, num_before = int(guarded.url.strip("/").rpartition(":")[2]), len(guarded.answered())

    client = Client(port)
    assert client.ask("/readyz")[0] == 200
    check_bodies(client, predictor.predict([cross()])[0])

    seen: Counter[int] = Counter()
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(ask_until_closed, port, seen) for _ in range(NUM_CLIENTS)]
        command.wait_until(lambda: seen[429] and seen[200] > 20)
        publish_another(runs)
        assert export(ExportConfig(train_dir=runs, export_dir=str(exports)))["version"] == 2
        command.wait_until(lambda: client.ask("/v1/models/new/versions/2")[0] == 200)
        client.close()
        count = seen[200]
        command.wait_until(lambda: seen[200] > count + 20)
        command.send_signal(signal.SIGTERM)
        statuses = [each.result() for each in clients]  # each request had an answer, or this raises
    assert command.wait() == 143
    assert command.stderr.splitlines()[-1].endswith("stopped by SIGTERM: no request is left without an answer")
    assert {status for each in statuses for status in each} <= {200, 429, 503}
    answered = guarded.answered()[num_before:]
    assert len(answered) == seen[200] + 4
    assert {line["step"] for line in answered} == {STEPS, STEPS + 1}
    assert KEY not in command.stderr + (guarded.folder / "log").read_text("utf-8")
