"""The PNG of the charts: layout, colours, and any names."""

import io
from collections.abc import Sequence

from PIL import Image, ImageChops

from convkit.report.curves import HEIGHT, Chart, Point, make_chart
from convkit.report.plot import draw_png

LOSS = make_chart("Loss", {"Loss": [(1.0, 3.0), (2.0, 1.0)]})


def draw(*charts: Chart) -> Image.Image:
    return Image.open(io.BytesIO(draw_png(charts)))


def colours(picture: Image.Image) -> set[str]:
    found = picture.convert("RGB").getcolors(2**24)
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in found or () if isinstance(colour, tuple)}


def top_of_blue(picture: Image.Image) -> int:
    blue = Image.new("RGB", picture.size, "#1f6feb")
    same = ImageChops.difference(picture, blue).convert("L").point(lambda value: 255 * (value == 0))
    found = same.getbbox()
    assert found
    return found[1]


def test_charts_are_drawn_below_each_other() -> None:
    one, both = draw(LOSS), draw(LOSS, LOSS)
    assert (both.width, both.height) == (one.width, 2 * one.height)
    assert one.height > HEIGHT
    assert both.crop((0, 0, *one.size)).tobytes() == both.crop((0, one.height, *both.size)).tobytes() == one.tobytes()


def test_a_curve_is_drawn_at_its_points() -> None:
    falling = make_chart("Loss", {"Loss": [(1.0, 1.0), (2.0, 0.0)]})
    picture = draw(falling)
    middle = picture.width // 2
    left, right = picture.crop((0, 0, middle, picture.height)), picture.crop((middle, 0, *picture.size))
    assert top_of_blue(left) + 150 < top_of_blue(right)


def test_every_curve_has_its_colour() -> None:
    scores: dict[str, Sequence[Point]] = {
        name: [(0.0, 0.1 * place), (9.0, 0.9)] for place, name in enumerate(("anls", "accuracy", "auroc"))
    }
    assert {"#1f6feb", "#b35900", "#7a3fb0"} <= colours(draw(make_chart("Scores", scores, marked=True)))
    noisy: dict[str, Sequence[Point]] = {"Loss": [(float(x), float(x % 7)) for x in range(200)]}
    assert {"#bcd4fa", "#1f6feb"} <= colours(draw(make_chart("Loss", noisy, smooth=True)))
    assert "#1f6feb" in colours(draw(make_chart("Loss", {"Loss": [(1.0, 3.0)]})))


def test_any_name_can_be_drawn() -> None:
    for name in ("x" * 100_000, "\x00\n\u202e\ud800", "", "日本 😀"):
        assert draw(make_chart(name, {name: [(0.0, 1.0), (1.0, 2.0)]}, marked=True)).size == draw(LOSS).size
