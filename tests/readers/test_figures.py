from __future__ import annotations

from dataclasses import replace

from octavo.media.page import TextLayer, Word
from octavo.readers.figures import find_pictures
from octavo.readers.lines import build_lines
from octavo.readers.regions import Region
from octavo.types import Box

from .drawing import prose, set_block, set_line

PAGE = Box(0, 0, 595, 842)


def boxes(layer: TextLayer, words: list[Word], regions: list[Region] | None = None) -> list[Box]:
    return [p.box for p in pictures(layer, words, regions)]


def pictures(layer: TextLayer, words: list[Word], regions: list[Region] | None = None) -> list:
    level = [word for word in words if not word.angle]
    return find_pictures(layer, build_lines(level), words, regions or [], PAGE, 10)


def test_a_placed_image_is_a_picture_and_ornaments_and_backgrounds_are_not() -> None:
    image = Box(100, 100, 300, 250)
    layer = TextLayer(images=(image, Box(10, 10, 30, 25), Box(0, 0, 595, 842)))
    assert boxes(layer, []) == [image]


def test_images_that_overlap_are_one_picture() -> None:
    layer = TextLayer(images=(Box(100, 100, 300, 250), Box(150, 120, 320, 260)))
    assert boxes(layer, []) == [Box(100, 100, 320, 260)]


def test_the_model_finds_drawings_and_the_box_fits_them() -> None:
    words = set_block(prose(4), 50, 500)
    shape = Box(95, 95, 210, 205)
    layer = TextLayer(words=tuple(words), shapes=(shape,))
    region = Region("figure", Box(100, 100, 205, 200), 0.9)
    assert boxes(layer, words, [region]) == [shape]


def test_prose_on_a_coloured_ground_is_no_picture() -> None:
    words = set_block(prose(20, words=10), 60, 110, width=400)
    layer = TextLayer(words=tuple(words), images=(Box(50, 100, 480, 360),))
    assert boxes(layer, words) == []


def test_a_line_belongs_to_a_picture_with_most_of_its_length() -> None:
    inside, beside = set_line("north wing", 110, 150), set_line("a long line of text", 280, 200)
    label = [replace(set_line("height", 105, 220)[0], angle=90.0)]
    words = inside + beside + label
    found = pictures(TextLayer(words=tuple(words), images=(Box(100, 100, 300, 250),)), words)
    assert [word.text for word in found[0].words] == ["north", "wing", "height"]


def test_without_the_model_clusters_of_shapes_are_drawings() -> None:
    words = tuple(set_block(prose(4), 50, 500))
    bars = tuple(Box(100 + 30 * i, 200 - 20 * i, 120 + 30 * i, 300) for i in range(5))
    found = boxes(TextLayer(words=words, shapes=bars), list(words))
    assert found == [Box(100, 120, 240, 300)]
    assert boxes(TextLayer(words=words, shapes=bars[:2]), list(words)) == []
