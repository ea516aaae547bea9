"""Citations of sources: BibTeX, CSL-JSON and plain text. What is unknown is left out."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chammi75.errors import ChammiError
from chammi75.schemas.cards import SourceCard

Style = Literal["bibtex", "csl", "text"]

STYLES: tuple[Style, ...] = ("bibtex", "csl", "text")
"""Styles that `cite` knows."""

_ET_AL = re.compile(r"^(?P<family>[^,;&]+?) (?P<initials>\w{1,4}) et al\.?$")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_KEPT_CASE = re.compile(r"\b\w*(?:\w[^\W\d_a-z\xdf-\xff]|\d[A-Za-z]|[A-Z][a-z]*\d)\w*\b")  # RNAi, MCF7, Rad53, p53BP


@dataclass(frozen=True)
class Cited:
    """What a citation of one source says. None is unknown, and left out.

    Attributes
    ----------
    id : str
        Id of the source.
    title, authors : str or None
        As the source states them (``"Graml V et al."``).
    year : int or None
        Year of what `doi` names: of the data's release, if it is the data's or there is none.
    study_doi, data_doi : str or None
        DOI of the publication and of the data.
    license : str or None
        SPDX expression.
    url : str or None
        A page of the source, where no DOI leads to one.
    images : int or None
        How many of its images are used.
    platform : str or None
        Name of the platform that the data is on.
    further_dois : tuple of str
        DOIs of more publications.
    """

    id: str
    title: str | None = None
    authors: str | None = None
    year: int | None = None
    study_doi: str | None = None
    data_doi: str | None = None
    license: str | None = None
    url: str | None = None
    images: int | None = None
    platform: str | None = None
    further_dois: tuple[str, ...] = ()

    @classmethod
    def of_card(cls, card: SourceCard, images: int | None = None, *, platform: str | None = None) -> Cited:
        """What a card says of how to cite it.

        The year that cards know is that of the data's release. Where the only DOI is the publication's it is left out,
        for the publication is of another year.
        """
        stated = card.citation
        year = stated.year if stated and (card.data_doi or not card.study_dois) else None
        return cls(
            id=card.id,
            title=stated.title if stated and stated.title else card.title,
            authors=stated.authors if stated else None,
            year=year,
            study_doi=card.study_doi,
            data_doi=card.data_doi,
            license=card.license,
            url=card.url,
            images=images,
            platform=platform,
            further_dois=tuple(card.study_dois[1:]),
        )

    @property
    def doi(self) -> str | None:
        """DOI of the data, else of the publication."""
        return self.data_doi or self.study_doi

    @property
    def publication_dois(self) -> tuple[str, ...]:
        """DOIs of the publications."""
        return (*((self.study_doi,) if self.study_doi else ()), *self.further_dois)


def cite(entries: Sequence[Cited], style: Style = "bibtex") -> str:
    """Citations, in the order of the entries.

    Parameters
    ----------
    entries : sequence of Cited
        The sources.
    style : {"bibtex", "csl", "text"}
        BibTeX (UTF-8; one ``@misc`` per source), CSL-JSON 1.0.2 (a JSON array), or a line of text for each.

    Returns
    -------
    str
        Ends with a line end; empty BibTeX or text where there are no entries.

    Raises
    ------
    ChammiError
        If the style is not known.

    Examples
    --------
    >>> one = Cited("fly0001", title="RNAi & you", authors="Toret CP et al.", study_doi="10.1083/jcb.201306082")
    >>> print(cite([one]), end="")
    @misc{fly0001,
      title = {{RNAi} \\& you},
      author = {Toret, C. P. and others},
      doi = {10.1083/jcb.201306082},
      note = {Source fly0001. Licence: unknown}
    }
    >>> print(cite([one], "text"), end="")
    Toret CP et al. RNAi & you. https://doi.org/10.1083/jcb.201306082. Source fly0001. Licence: unknown
    """
    if style == "bibtex":
        keys = _unique(
            [re.sub(r"[^A-Za-z0-9:.+-]+", "-", _ascii(entry.id)).strip("-") or "source" for entry in entries]
        )
        return "\n".join(_bibtex(entry, key) for entry, key in zip(entries, keys, strict=True))
    if style == "csl":
        ids = _unique([entry.id for entry in entries])
        items = [_csl(entry, key) for entry, key in zip(entries, ids, strict=True)]
        return json.dumps(items, indent=2, ensure_ascii=False) + "\n"
    if style == "text":
        return "".join(f"{_text(entry)}\n" for entry in entries)
    raise ChammiError(f"there is no style {style!r} of citations; known are {', '.join(STYLES)}")


def latex_escaped(text: str) -> str:
    """``text`` with the characters escaped that TeX reads as commands; letters beyond ASCII stay (UTF-8).

    Examples
    --------
    >>> print(latex_escaped("50% of {cells} & β_catenin"))
    50\\% of \\{cells\\} \\& β\\_catenin
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _bibtex(entry: Cited, key: str) -> str:
    fields = {
        "title": _title(entry.title) if entry.title else None,
        "author": _bibtex_author(entry.authors) if entry.authors else None,
        "year": str(entry.year) if entry.year is not None else None,
        "howpublished": latex_escaped(f"{entry.platform}, {entry.id}") if entry.platform else None,
        "doi": _verbatim(entry.doi) if entry.doi else None,
        "url": _verbatim(entry.url) if entry.url and not entry.doi else None,
        "note": latex_escaped(". ".join(_remarks(entry))),
    }
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@misc{{{key},\n" + ",\n".join(lines) + "\n}\n"


def _csl(entry: Cited, key: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": key,
        "type": "dataset",
        "title": entry.title,
        "author": _csl_authors(entry.authors) if entry.authors else None,
        "issued": {"date-parts": [[entry.year]]} if entry.year is not None else None,
        "archive": entry.platform,
        "archive_location": entry.id,
        "DOI": entry.doi,
        "URL": entry.url if not entry.doi else None,
        "license": entry.license,
        "note": ". ".join(_remarks(entry)),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _text(entry: Cited) -> str:
    authors = entry.authors
    link = f"https://doi.org/{entry.doi}" if entry.doi else entry.url
    dated = (
        f"{authors} ({entry.year})" if authors and entry.year else authors or (str(entry.year) if entry.year else None)
    )
    parts = (dated, entry.title, entry.platform, link, *_remarks(entry))
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part)


def _remarks(entry: Cited) -> list[str]:
    """What no field of a citation takes: id, the other DOIs, licence, how many images."""
    others = [doi for doi in entry.publication_dois if doi != entry.doi]
    remarks = [f"Source {entry.id}"]
    if others:
        remarks.append(f"Publication{'s' if len(others) > 1 else ''}: {', '.join(f'doi:{doi}' for doi in others)}")
    remarks.append(f"Licence: {entry.license or 'unknown'}")
    if entry.images is not None:
        remarks.append(f"Images used: {entry.images}")
    return remarks


def _title(title: str) -> str:
    """A title in which styles leave the case of words like RNAi alone."""
    words = [f"{{{latex_escaped(word)}}}" if _KEPT_CASE.search(word) else latex_escaped(word) for word in title.split()]
    return " ".join(words)


def _bibtex_author(authors: str) -> str:
    found = _ET_AL.match(authors)
    if found is None:
        return f"{{{latex_escaped(authors)}}}"  # in braces: a name that is not taken apart
    return f"{latex_escaped(found['family'])}, {_initials(found['initials'])} and others"


def _csl_authors(authors: str) -> list[dict[str, str]]:
    found = _ET_AL.match(authors)
    if found is None:
        return [{"literal": authors}]
    return [{"family": found["family"], "given": _initials(found["initials"])}, {"literal": "et al."}]


def _initials(letters: str) -> str:
    return " ".join(f"{letter}." for letter in letters)


def _verbatim(text: str) -> str:
    """A DOI or URL within braces: styles print it as it is; what would end the field is percent-encoded."""
    return re.sub(r"[{}\\\s%]", lambda found: f"%{ord(found[0]):02X}" if found[0] != "%" else "%", text)


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _unique(keys: Sequence[str]) -> list[str]:
    """Keys made different where they repeat: ``a``, ``a-2``, ``a-3``."""
    taken: set[str] = set()
    unique = []
    for key in keys:
        number, name = 1, key
        while name.casefold() in taken:
            number += 1
            name = f"{key}-{number}"
        taken.add(name.casefold())
        unique.append(name)
    return unique
