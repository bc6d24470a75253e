"""A two-column article: title, abstract, headings, table, figure, list, footnote, running head.

Set with reportlab's page templates. Soft hyphens in the text become hyphens where a line ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.shapes import Drawing, String
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    FrameBreak,
    KeepTogether,
    ListFlowable,
    ListItem,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)


@dataclass(frozen=True, slots=True)
class Article:
    """The words of one page. ``sections`` go before the figure, ``closing`` after the list."""

    running_head: str
    page: str
    title: str
    authors: str
    abstract: str
    sections: Sequence[tuple[str, Sequence[str]]]
    figure_caption: str
    bars: Sequence[tuple[str, float]]
    axis: str
    table_caption: str
    table: Sequence[Sequence[str]]
    list_intro: str
    points: Sequence[str]
    closing: tuple[str, Sequence[str]]
    footnote: str


_BODY = ParagraphStyle(
    "body", fontName="Times-Roman", fontSize=10.5, leading=13, alignment=TA_JUSTIFY, spaceAfter=4
)
_HEADING = ParagraphStyle(
    "heading", fontName="Times-Bold", fontSize=12, leading=15, spaceBefore=7, spaceAfter=4
)
_CAPTION = ParagraphStyle(
    "caption", fontName="Times-Italic", fontSize=8.8, leading=10.6, spaceAfter=4
)
_NOTE = ParagraphStyle("note", fontName="Times-Roman", fontSize=7.8, leading=9.4)
_TITLE = ParagraphStyle(
    "title", fontName="Times-Bold", fontSize=18, leading=22, alignment=TA_CENTER, spaceAfter=6
)
_AUTHORS = ParagraphStyle(
    "authors", fontName="Times-Roman", fontSize=11, leading=14, alignment=TA_CENTER, spaceAfter=8
)
_ABSTRACT = ParagraphStyle(
    "abstract",
    parent=_BODY,
    fontSize=9.4,
    leading=11.6,
    leftIndent=40,
    rightIndent=40,
    spaceAfter=8,
)


_SPLITS = (
    "af-ter-noon al-though any-body ap-pren-tices bind-er bind-ers bro-ken cen-ti-me-tres chap-ter "
    "col-lec-tion col-our col-ours con-sid-er-able cus-tom-er cus-tom-ers damp-ness dif-fer-ence "
    "dif-fer-ent every-body fin-ish-er fin-ished hap-pened hun-dred in-stead ket-tle lan-guage leath-er "
    "low-ers ma-chine ma-te-ri-al mea-sured mil-li-me-tre morn-ing neigh-bours nei-ther news-pa-per "
    "noth-ing noted num-ber o-pened o-pin-ions or-di-nary par-tic-u-lar pat-tern pa-tience per-haps "
    "pub-lished pur-pose ques-tion read-er re-main-ing re-peat-ed sea-weed sec-ond sec-tion sec-tions "
    "sel-dom set-tled sev-er-al sim-ple some-body sur-face tem-per-a-ture thou-sand tired-ness to-geth-er "
    "trou-ble wait-ed weath-er with-out work-shop work-shops"
).split()
_MARKED = {word.replace("-", ""): word.replace("-", "\u00ad") for word in _SPLITS}


def _soft(text: str) -> str:
    """Soft hyphens in the words that we know how to split."""
    return re.sub(r"[a-z]+", lambda found: _MARKED.get(found[0], found[0]), text)


def draw(path: Path, article: Article) -> None:
    """Sets ``article`` on one A4 page."""
    wide, high = A4
    column = (wide - 120) / 2
    opening = _opening(article)
    tall = sum(par.wrap(wide - 100, high)[1] + par.getSpaceAfter() for par in opening) + 4
    top = high - 56 - tall
    head = Frame(50, top, wide - 100, tall, 0, 0, 0, 0)
    left = Frame(50, 96, column, top - 110, 0, 0, 0, 0)
    right = Frame(70 + column, 56, column, top - 70, 0, 0, 0, 0)

    def furniture(canvas: Canvas, _document: object) -> None:
        canvas.setFont("Times-Italic", 9)
        canvas.drawString(50, high - 38, article.running_head)
        canvas.drawRightString(wide - 50, high - 38, article.page)
        canvas.setLineWidth(0.4)
        canvas.line(50, 88, 120, 88)
        note = Paragraph(article.footnote, _NOTE)
        note.drawOn(canvas, 50, 84 - note.wrap(column, 60)[1])

    document = BaseDocTemplate(str(path), pagesize=A4, invariant=1, title=article.title)
    document.addPageTemplates(PageTemplate("page", [head, left, right], onPage=furniture))
    document.build([*opening, FrameBreak(), *_story(article, column)])


def _opening(article: Article) -> list[Paragraph]:
    return [
        Paragraph(article.title, _TITLE),
        Paragraph(article.authors, _AUTHORS),
        Paragraph(f"<b>Abstract.</b> {article.abstract}", _ABSTRACT),
    ]


def _story(article: Article, column: float) -> list[Flowable]:
    story: list[Flowable] = []
    for heading, paragraphs in article.sections:
        story.append(Paragraph(heading, _HEADING))
        story += [Paragraph(_soft(text), _BODY) for text in paragraphs]
    story.append(KeepTogether([_table(article, column), Spacer(1, 8)]))
    story.append(
        KeepTogether([_figure(article, column), Paragraph(article.figure_caption, _CAPTION)])
    )
    story.append(Paragraph(article.list_intro, _BODY))
    story.append(
        ListFlowable(
            [ListItem(Paragraph(_soft(point), _BODY), leftIndent=16) for point in article.points],
            bulletType="bullet",
            bulletFontSize=8,
            leftIndent=14,
        )
    )
    heading, paragraphs = article.closing
    story.append(Paragraph(heading, _HEADING))
    story += [Paragraph(_soft(text), _BODY) for text in paragraphs]
    return story


def _table(article: Article, column: float) -> Flowable:
    widths = [
        column * 0.4,
        *[column * 0.6 / (len(article.table[0]) - 1)] * (len(article.table[0]) - 1),
    ]
    rules = TableStyle(
        [
            ("FONT", (0, 0), (-1, -1), "Times-Roman", 9),
            ("FONT", (0, 0), (-1, 0), "Times-Bold", 9),
            ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
            ("LINEABOVE", (0, 0), (-1, 0), 1, colors.black),
            ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
            ("LINEBELOW", (0, -1), (-1, -1), 1, colors.black),
            ("TOPPADDING", (0, 0), (-1, -1), 1.5),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ]
    )
    grid = Table([list(row) for row in article.table], colWidths=widths, style=rules)
    return KeepTogether([Paragraph(article.table_caption, _CAPTION), grid])


def _figure(article: Article, column: float) -> Drawing:
    drawing = Drawing(column, 108)
    chart = VerticalBarChart()
    chart.x, chart.y, chart.width, chart.height = 34, 20, column - 50, 78
    chart.data = [tuple(value for _, value in article.bars)]
    chart.categoryAxis.categoryNames = [name for name, _ in article.bars]
    chart.categoryAxis.labels.fontSize = 7.5
    chart.valueAxis.valueMin = 0
    chart.valueAxis.labels.fontSize = 7
    chart.bars[0].fillColor = colors.Color(0.30, 0.42, 0.55)
    drawing.add(chart)
    drawing.add(String(30, 101, article.axis, fontName="Helvetica", fontSize=7.5))
    return drawing


SEWING = Article(
    running_head="Sewing structures and the life of a book",
    page="23",
    title="How Long Does a Sewn Book Stay Open?",
    authors="Marta Ellingsen and Josias Okonkwo",
    abstract=(
        "A book that will not lie open is read less, and one that is pressed flat breaks sooner. We sewed "
        "forty small books in four ways and let a machine open and close each of them until a thread or a "
        "leaf gave way. Books sewn over raised cords lasted longest, but those sewn on tapes opened "
        "further and asked for less than half of the force."
    ),
    sections=(
        (
            "1 Introduction",
            (
                "The sewing of a book is hidden as soon as the spine is covered, and so the buyer cannot "
                "judge it. Binders have always had opinions of their own about which way is best, "
                "but they seldom agree, and the books that could settle the question are the ones "
                "that have fallen to pieces.<super>1</super>",
                "We wanted to know two things: how many times a book can be opened before it fails, and how "
                "much force it takes to keep it open at a right angle. Both can be measured with "
                "simple means. Neither had been measured for books that were made on "
                "purpose to be alike.",
            ),
        ),
        (
            "2 Materials and method",
            (
                "Every book had twelve sections of four sheets, cut from one batch of paper. The thread was "
                "linen, waxed by hand. Ten books were sewn in each of four ways, and the binder changed "
                "the way after every second book, so that tiredness would not favour any of them.",
                "The machine turned one board through half a circle, waited for two seconds and brought it "
                "back. It stopped when the weight on a small lever fell, which happened as soon as a "
                "section was loose by a millimetre.",
                "We stopped at twelve thousand openings. A novel that is read by a whole family is opened "
                "perhaps six hundred times, and the cookery book of one of the authors, which was "
                "counted over a winter, was opened nineteen times a week.",
                "Force was measured with a spring balance hung from the fore edge. The reading was taken "
                "after a minute, because paper gives way slowly and the first reading depends on how "
                "quickly the observer can bend down to it.",
                "All books were kept in the same cupboard for a month before the trial. The temperature "
                "there was between sixteen and nineteen degrees, and nobody cooked in the house on the "
                "days on which the machine was running.",
            ),
        ),
    ),
    table_caption="Table 1. Openings until failure and force at a right angle, mean of ten books.",
    table=(
        ("Sewing", "Openings", "Force (N)", "Failed at"),
        ("Raised cords", "11,240", "3.8", "leaf"),
        ("Tapes", "9,615", "1.7", "thread"),
        ("Link stitch", "7,082", "1.2", "thread"),
        ("Recessed cords", "5,930", "2.9", "cord"),
    ),
    figure_caption="Figure 1. Angle to which a book stays open by itself after a hundred openings.",
    bars=(("Raised", 74.0), ("Tapes", 128.0), ("Link", 141.0), ("Recessed", 97.0)),
    axis="degrees",
    list_intro="Three things should be kept in mind by anyone who reads the table:",
    points=(
        "the books were small, and a heavy book pulls at its thread by its own weight;",
        "no glue was used on the spine, although most binders would have used some;",
        "a machine is gentler than a reader who is looking for a recipe.",
    ),
    closing=(
        "3 Conclusion",
        (
            "Raised cords are worth their trouble for a book that must last, and tapes for one that "
            "must be read. The link stitch opens best of all and needs neither, which may be why the "
            "oldest books that we have were sewn with it.",
        ),
    ),
    footnote=(
        "<super>1</super> Repairs seldom keep the old sewing, and dealers' notes rarely mention it."
    ),
)

MARBLING = Article(
    running_head="Notes on marbled paper",
    page="58",
    title="Why the Colours of a Marbler Do Not Mix",
    authors="Henrike Dahl and Paolo Brandimarte",
    abstract=(
        "Drops of paint that are let fall upon thickened water spread into discs and push each other aside "
        "without running together. We repeated the trials of a workshop book of 1853 with five colours and "
        "found that the order of the drops, and not their size, decides how far each of them will spread."
    ),
    sections=(
        (
            "1 The bath",
            (
                "The bath is water in which seaweed has been boiled. It must be thick enough to carry the "
                "colours and thin enough to let them move, and the old rule is that a comb drawn through it "
                "should leave a trace for as long as it takes to say one's name.",
                "A bath that is too cold makes the drops ragged. One that is too warm sours within a day, and "
                "the smell of it has ended more than one apprenticeship.<super>2</super>",
            ),
        ),
        (
            "2 Ox gall",
            (
                "Each colour is mixed with a little ox gall. The gall lowers the pull of the surface, "
                "so that the drop runs out until it meets its neighbours. A later drop needs more gall "
                "than an earlier one, because it has to push its way among those that are there before it.",
                "We counted the drops of gall that were needed for a disc of eight centimetres, first on an "
                "empty bath and then on one that was full.",
                "The first colour was always indigo, since the old book begins with it. When the order was "
                "turned round, the lamp black that had hardly spread before ran to the edges of the bath, "
                "and the indigo was left as thin veins between the other colours.",
                "Size had little to do with it. A drop from a straw and a drop from a brush that was four "
                "times as large came to within a few millimetres of each other, if they were let fall at "
                "the same place in the order and had been mixed with the same number of drops of gall.",
                "The gall of three different butchers was tried and no difference was found. That of a fourth "
                "turned out to be vinegar, and the sheets that were made with it have been given away to "
                "several children of the neighbours.",
            ),
        ),
    ),
    table_caption="Table 1. Drops of gall for a disc of eight centimetres.",
    table=(
        ("Colour", "Empty", "Full", "Ratio"),
        ("Indigo", "4", "11", "2.75"),
        ("Red lake", "6", "15", "2.50"),
        ("Ochre", "3", "9", "3.00"),
        ("Lamp black", "7", "16", "2.29"),
    ),
    figure_caption="Figure 1. Width of a disc by its place in the order of drops.",
    bars=(("First", 8.1), ("Second", 6.9), ("Third", 6.2), ("Fourth", 4.4)),
    axis="centimetres",
    list_intro="Who wants to repeat the trial should see to these:",
    points=(
        "skim the bath with a strip of newspaper before every sheet;",
        "let alum dry on the paper, or the colour will slide off;",
        "write down the weather.",
    ),
    closing=(
        "3 What follows",
        (
            "The pattern is settled by the first hand and the last comb. In between there is room for "
            "chance, and the sheets that were praised most in our workshop are those on which somebody "
            "sneezed.",
        ),
    ),
    footnote="<super>2</super> A spoon of borax keeps the bath sweet for a week.",
)

GILDING = Article(
    running_head="The finisher's bench",
    page="7",
    title="Gold Leaf and the Weather",
    authors="Teodora Lindqvist",
    abstract=(
        "Gold leaf is laid on glair, which is the white of an egg, and is fixed by a warm tool. Whether it "
        "holds is said to depend on the weather. A diary of one year shows that it does, and that what "
        "matters is the water in the air and not the heat."
    ),
    sections=(
        (
            "1 A year of diaries",
            (
                "From March to February the author noted every day how much of the gold that she laid had to "
                "be laid again. She noted the temperature of the room and the dampness of the air, "
                "and the state of her own patience, which is left out here.",
                "In all she laid two thousand one hundred lines of gold on the spines of three hundred "
                "books. One line in nine had to be done twice.<super>1</super>",
            ),
        ),
        (
            "2 Damp days",
            (
                "On damp days the glair stays soft, and the tool picks up the gold that it should press down. "
                "On dry days it hardens before the leaf is laid, and the gold does not bite. The best "
                "days are those on which a sheet of paper, left on the bench, begins to curl at one corner.",
                "The heat of the room mattered less than had been thought. Lines that were laid on the hottest "
                "afternoon of July were no worse than those of the week before, and the coldest morning of "
                "the winter, on which the ink was frozen, was the only one without a single failure.",
                "It was not possible to separate the weather from the leather. Goatskin drinks more slowly "
                "than calf, and most of the calf was finished in autumn because the customers who ask for it "
                "like to have their books before Christmas.",
                "Gold from two beaters was used. The leaves of the second were thinner and tore more "
                "often, but they lay more closely in the small letters, and several of the spines that "
                "were done with them have been taken for older work.",
            ),
        ),
    ),
    table_caption="Table 1. Lines laid and lines laid twice, by dampness of the air.",
    table=(
        ("Dampness", "Lines", "Twice", "Share"),
        ("under 40 %", "512", "84", "16 %"),
        ("40 to 60 %", "1,036", "41", "4 %"),
        ("over 60 %", "552", "108", "20 %"),
    ),
    figure_caption="Figure 1. Share of lines laid twice in each season.",
    bars=(("Spring", 7.0), ("Summer", 12.0), ("Autumn", 16.0), ("Winter", 9.0)),
    axis="per cent",
    list_intro="On a bad day a finisher may still:",
    points=(
        "warm the room with a kettle or dry it with a stove;",
        "breathe upon the leather before the leaf is laid;",
        "sharpen knives instead.",
    ),
    closing=(
        "3 Advice",
        (
            "A hair in a brass frame costs little and tells the dampness of the air. Those who do not "
            "want one may ask a cellist.",
        ),
    ),
    footnote="<super>1</super> Sundays and the week of the flood are not counted.",
)
