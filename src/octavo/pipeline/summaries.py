"""Summaries without a model: sentences chosen from the text, word for word.

A sentence's worth is its centrality among the other sentences (continuous LexRank: Erkan and
Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text Summarization", JAIR 22, 2004)
raised by its place and by the words that it shares with the headings (the location and title
methods of Edmundson, "New Methods in Automatic Extracting", JACM 16, 1969). Sentences are then
taken one at a time against redundancy (maximal marginal relevance: Carbonell and Goldstein,
SIGIR 1998) and given in the order of the document. Nothing is random and nothing is learned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from octavo.types import Category, Element, PageResult, Summary, SummarySentence

#: Sentences of one page that are compared with each other; the matrix is this squared.
MAX_SENTENCES = 256
#: A document keeps ``BUCKET`` candidates for each of at most ``BUCKETS`` stretches of pages.
BUCKETS = 64
BUCKET = 4

_MIN_CHARS, _MAX_CHARS = 25, 500
_DAMPING = 0.85  # of PageRank, as in the paper
_REDUNDANCY = 0.4  # weight of novelty against worth
_SAME = 0.95  # as similar as this, two sentences are one; a chosen one is 1 to itself
_LEAD, _HEADING = 0.5, 0.8

# CJK, Hangul excluded (it has spaces); Thai, Lao, Khmer and Burmese also write without spaces.
_DENSE = "぀-ヿ㐀-䶿一-鿿豈-﫿฀-໿က-႟ក-៿"
_WORD = re.compile(rf"[{_DENSE}]+|[^\W\d_{_DENSE}]+(?:['’][^\W\d_]+)?")
_DENSE_CHAR = re.compile(f"[{_DENSE}]")
_NO_STOPS = re.compile("[฀-໿]")  # Thai and Lao end a sentence with a space

_CLOSERS = "\"'”’»›)\\]」』）】〉》"
_STOP = re.compile(
    rf"(?P<dense>[。！？｡．؟۔।॥።։]+[{_CLOSERS}]*)|(?P<latin>[.!?…]+[{_CLOSERS}]*)(?=\s|$)"
)
_ABBREVIATION = re.compile(
    "al|approx|art|bd|bzw|ca|cap|ch|chap|co|corp|dr|eds?|eqs?|exp|figs?|gen|gov|hrsg|inc|jr|lt|ltd"
    "|max|mev|mio|min|mme?|mrs?|ms|nos?|nr|núm|op|pág|pp?|prof|refs?|resp|rev|sect?|sen|sig|sra?|ss"
    "|st|tab|univ|vgl|vols?|vs|zit",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\W*(?:\d{1,2}|[ivxlc]{1,5})$", re.IGNORECASE)
_ORDINAL_OF = re.compile(r"\s*(?:J[aä]n|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrh)")
_DOTTED = re.compile(r"^(?:[^\W\d_]\.)+[^\W\d_]$")

_REFERENCES_HEADING = re.compile(
    r"^[\W\d]*(?:references|bibliography|works cited|literature cited|literatur(?:verzeichnis)?"
    r"|bibliographie|références|referencias|bibliografía|bibliografia|riferimenti|referências"
    r"|список литературы|литература|参考文献|參考文獻|参考資料|참고문헌|المراجع)\W*$",
    re.IGNORECASE,
)
_REFERENCE_SIGNS = (
    re.compile(r"^\s*(?:\[\d+\]|\[[A-Z][\w+]*\d\d[a-z]?\]|\(\d+\)|\d+\.)\s"),
    re.compile(r"[(,.\s](?:18|19|20)\d\d[a-z]?[).,;]"),
    re.compile(r"\bdoi\b|arxiv|\bISBN\b|https?://", re.IGNORECASE),
    re.compile(r"\b(?:pp?|pages|vol|no)\.?\s*\d+|\d+\s*\(\d+\)\s*[:,]\s*\d+|\d+\s*[-–]\s*\d+[.,]"),
    re.compile(r"(?:[A-Z]\.[\s,-]*){1,3}(?:,|and|&|[A-Z][a-z]+,)|\bet al\b"),
    re.compile(r"\bProc(?:eedings|\.)|\bJournal\b|\bJ\. |\bPress\b|\bConference\b|\bTrans\."),
)
_NOISE = re.compile(r"\.{4,}|(?:\. ){3,}|�|\S+@\S+\.\S+|https?://|©")

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Sentence:
    """``place`` orders sentences as read; ``prior`` is what is known before comparing them."""

    text: str
    element_id: str
    terms: frozenset[str]
    place: tuple[int, int]
    prior: float = 1.0


def summarize_page(result: PageResult, sentences: int = 3) -> Summary | None:
    """The most telling ``sentences`` of one page, or as many as it has.

    Running heads, tables, captions, footnotes, formulas, text inside pictures and lists of
    references are left out. None for a failed page and for one without a whole sentence.
    """
    candidates, headings = _Walk().page(result)
    return _summary(_choose(_with_priors(candidates, headings), sentences))


def summarize_document(pages: Iterable[PageResult], sentences: int = 7) -> Summary | None:
    """The most telling ``sentences`` of a document, drawn from all of its length.

    ``pages`` is read once. Only the best candidates of each stretch of pages are kept, and
    stretches are joined in pairs as the document grows: at most ``BUCKETS * BUCKET`` sentences
    are held whatever the number of pages.
    """
    walk = _Walk()
    buckets: list[list[_Sentence]] = []
    title: frozenset[str] = frozenset()
    span = 1  # pages to a bucket; doubles when the buckets are full
    for seen, page in enumerate(pages):
        candidates, headings = walk.page(page)
        title = title or headings
        best = _choose(_with_priors(candidates, headings), BUCKET)
        # The first pages say what a document is about: abstract, preface, summary.
        lead = 1 + _LEAD / (1 + seen)
        best = [replace(sentence, prior=sentence.prior * lead) for sentence in best]
        if seen % span == 0:
            buckets.append([])
        buckets[-1] = _best(buckets[-1] + best)
        if len(buckets) == BUCKETS and (seen + 1) % span == 0:
            buckets = [_best(buckets[i] + buckets[i + 1]) for i in range(0, BUCKETS, 2)]
            span *= 2
    pool = [sentence for bucket in buckets for sentence in bucket]
    raised = [replace(s, prior=s.prior * (1 + _HEADING * _overlap(s, title))) for s in pool]
    return _summary(_choose(raised, sentences))


def split_sentences(text: str) -> Iterator[tuple[str, bool]]:
    """The sentences of ``text`` as they stand in it, and whether each ends as a sentence does.

    Needs no language: stops of Latin, Cyrillic, Greek, CJK, Arabic, Devanagari, Ethiopic and
    Armenian writing; decimals, initials and common abbreviations do not end a sentence.
    """
    start = 0
    for stop in _STOP.finditer(text):
        if stop["dense"] or _ends(text, start, stop):
            piece = text[start : stop.end()].strip()
            start = stop.end()
            if piece:
                yield piece, True
    if rest := text[start:].strip():
        yield rest, _NO_STOPS.search(rest) is not None


def _ends(text: str, start: int, stop: re.Match[str]) -> bool:
    after = text[stop.end() :].lstrip()[:1]
    if after.islower():
        return False
    if not stop["latin"].startswith(".") or not after:
        return True
    before = text[start : stop.start()]
    token = re.split(r"[\s(\[]", before)[-1]
    initial = len(token) == 1 and token.isalpha() and token.isupper()
    numbered = _NUMBERED.match(token) is not None and (
        token == before.strip() or _ORDINAL_OF.match(text[stop.end() :]) is not None
    )
    dotted = _DOTTED.match(token) is not None  # U.S., e.g., z.B.
    return not (initial or numbered or dotted or _ABBREVIATION.fullmatch(token))


class _Walk:
    """Walks over pages in order and remembers whether it is inside a list of references."""

    def __init__(self) -> None:
        self._references_level: int | None = None

    def page(self, result: PageResult) -> tuple[list[_Sentence], frozenset[str]]:
        """The page's whole sentences, and the words of its headings."""
        found: list[_Sentence] = []
        headings: set[str] = set()
        if result.failure:
            return found, frozenset()
        for element in result.elements:
            if element.category in (Category.TITLE, Category.SECTION_HEADER):
                headings |= _terms(element.text)
                self._heading(element)
            elif (
                element.category in (Category.TEXT, Category.LIST_ITEM)
                and self._references_level is None
                and not _is_reference(element.text)
            ):
                found += _sentences(element, result.number, len(found))
        return found[:MAX_SENTENCES], frozenset(headings)

    def _heading(self, element: Element) -> None:
        level = element.level or 1
        if _REFERENCES_HEADING.match(element.text):
            self._references_level = level
        elif self._references_level is not None and level <= self._references_level:
            self._references_level = None


def _sentences(element: Element, page: int, place: int) -> Iterator[_Sentence]:
    for index, (text, whole) in enumerate(split_sentences(element.text)):
        # What continues from an earlier column or page begins in the middle of a sentence.
        cut = not whole or (index == 0 and (element.continues or text[0].islower()))
        if not cut and _is_prose(text):
            yield _Sentence(text, element.id, _terms(text), (page, place))
            place += 1


def _is_prose(text: str) -> bool:
    dense = len(_DENSE_CHAR.findall(text))
    length = len(text) + 2 * dense  # a Chinese character says about as much as three letters
    return (
        _MIN_CHARS <= length <= _MAX_CHARS
        and sum(char.isalpha() or char.isspace() for char in text) >= 0.75 * len(text)
        and (dense > 0 or text.count(" ") >= 3)
        and _NOISE.search(text) is None
    )


def _is_reference(text: str) -> bool:
    return len(text) < 600 and sum(bool(sign.search(text)) for sign in _REFERENCE_SIGNS) >= 3


def _terms(text: str) -> frozenset[str]:
    """Words of three letters and more in lower case; pairs of characters where none are spaced."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        if _DENSE_CHAR.match(word):
            found.update(word[i : i + 2] for i in range(len(word) - 1))
        elif len(word) > 2:
            found.add(word)
    return frozenset(found)


def _overlap(sentence: _Sentence, headings: frozenset[str]) -> float:
    return len(sentence.terms & headings) / len(headings) if headings else 0.0


def _with_priors(found: Sequence[_Sentence], headings: frozenset[str]) -> list[_Sentence]:
    return [
        replace(s, prior=(1 + _LEAD / (1 + index)) * (1 + _HEADING * _overlap(s, headings)))
        for index, s in enumerate(found)
    ]


def _best(found: list[_Sentence]) -> list[_Sentence]:
    kept = sorted(found, key=lambda s: (-s.prior, s.place))[:BUCKET]
    return sorted(kept, key=lambda s: s.place)


def _similarity(found: Sequence[_Sentence]) -> Matrix:
    """Cosine between sentences over their words, weighted by inverse sentence frequency."""
    counts = Counter(term for sentence in found for term in sentence.terms)
    # A word in one sentence only relates it to no other: it enters the norm, not the product.
    shared = {term: i for i, term in enumerate(sorted(t for t, n in counts.items() if n > 1))}
    weights = np.zeros((len(found), len(shared)))
    norms = np.zeros(len(found))
    for row, sentence in enumerate(found):
        for term in sorted(sentence.terms):
            weight = float(np.log(1 + len(found) / counts[term]))
            norms[row] += weight**2
            if term in shared:
                weights[row, shared[term]] = weight
    weights /= np.sqrt(np.maximum(norms, 1e-12))[:, None]
    similar: Matrix = weights @ weights.T
    np.fill_diagonal(similar, 1.0)
    return similar


def _centrality(similar: Matrix) -> Matrix:
    """The stationary distribution of LexRank times the number of sentences: 1 on average.

    A sentence does not vote for itself, else one that nothing relates to would score the average.
    """
    count = len(similar)
    votes = similar - np.diag(np.diag(similar))
    given = votes.sum(axis=1, keepdims=True)
    step = np.where(given > 1e-9, votes / np.maximum(given, 1e-9), 1 / count)
    rank: Matrix = np.ones(count)
    for _ in range(50):
        following = (1 - _DAMPING) + _DAMPING * (rank @ step)
        if np.abs(following - rank).max() < 1e-6:
            break
        rank = following
    return rank


def _choose(found: Sequence[_Sentence], wanted: int) -> list[_Sentence]:
    """The ``wanted`` best sentences as read, their ``prior`` raised by their centrality."""
    if not found or wanted < 1:
        return []
    similar = _similarity(found)
    # Rounded, so that the last bits of a sum never decide between two sentences.
    worth = np.round(_centrality(similar) * np.array([s.prior for s in found]), 9)
    chosen: list[int] = []
    nearest = np.zeros(len(found))
    for _ in range(min(wanted, len(found))):
        gain = np.round(worth / worth.max() - _REDUNDANCY * nearest, 9)
        gain[nearest > _SAME] = -np.inf
        best = int(gain.argmax())
        if nearest[best] > _SAME:
            break
        chosen.append(best)
        nearest = np.maximum(nearest, similar[best])
    return [replace(found[i], prior=float(worth[i])) for i in sorted(chosen)]


def _summary(chosen: Sequence[_Sentence]) -> Summary | None:
    taken = tuple(SummarySentence(s.text, s.element_id) for s in chosen)
    return Summary("extractive", taken) if taken else None
