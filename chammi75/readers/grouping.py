"""Which files are the channels of one image: declared by a pattern of their names.

>>> pattern = FilePattern.parse(r"{plate}_{well}_s{fov}_w{channel:\\d}{*}")
>>> match = pattern.match("2023/1334/Projection-Mix_E07_s1_w2B14915F6.tif")
>>> match.fields
{'plate': 'Projection-Mix', 'well': 'E07', 'fov': '1', 'channel': '2'}
>>> match.identity
'2023/1334/Projection-Mix_E07_s1_w*.tif'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chammi75.errors import RecipeError

_TEXT = r"[^/]+?"
_DEFAULTS = {
    "study": _TEXT,
    "plate": _TEXT,
    "well": r"[A-Za-z]{1,2}-?[0-9]{1,2}",
    "row": r"[A-Za-z]{1,2}|[0-9]{1,2}",
    "column": r"[0-9]{1,2}",
    "fov": _TEXT,
    "channel": _TEXT,
    "z": r"[0-9]+",
    "t": r"[0-9]+",
    "image": _TEXT,
    "*": r"[^/]*?",
}
_FREE = frozenset({_TEXT, _DEFAULTS["*"]})
_SUFFIX = re.compile(
    r"(\.ome)?\.(tiff?|btf|tf[28]|png|stk|lsm|svs|jpe?g|jp2|bmp|gif|czi|nd2|lif|flex|dib|dv|mrc|zarr)$", re.IGNORECASE
)
_LONGEST_SUFFIX = len(".ome.tiff")
_LONGEST_PATTERN = 500
_LONGEST_PATH = 4096
# A repeated group that itself repeats something, "(a+)+": the one shape that makes matching take for ever.
_NESTED_REPEAT = re.compile(r"[*+}][^()]*\)\s*(?:[*+]|\{\d*,)")


@dataclass(frozen=True)
class PatternMatch:
    """What a pattern reads from one path.

    Parameters
    ----------
    fields : mapping
        Placeholder to text; a ``well`` is added where ``row`` and ``column`` are given instead (row 1 is A).
    identity : str
        The path with its channel and its ``{*}`` parts replaced by ``*``: equal for the files of one image.
    folder : str
        The part of the path before what the pattern reads.
    """

    fields: Mapping[str, str]
    identity: str
    folder: str = ""


class NameReader(Protocol):
    """What reads file names: a `FilePattern`, or several of them."""

    def match(self, relative_path: str) -> PatternMatch | None:
        """What the name says, or None if it is no such name."""
        ...


@dataclass(frozen=True)
class FilePattern:
    """A declared pattern of file names; make one with `parse`."""

    text: str
    _regex: re.Pattern[str]
    _components: int
    _has_suffix: bool

    @classmethod
    def parse(cls, text: str) -> FilePattern:
        r"""Read a pattern such as ``"{plate}_{well}_s{fov}_w{channel}"``.

        Placeholders: study, plate, well, row, column, fov, channel, z, t, image (any other part of what makes an image;
        it may occur several times) and ``{*}`` (text that does not matter). Each may carry a regular expression,
        ``{channel:\d}``; a literal brace is ``{{``. With a ``/`` (in a regular expression, too) the pattern is matched
        against as many trailing parts of the path as it has, else against the file name; without a file suffix it is
        matched against the name without its own.

        Raises
        ------
        RecipeError
            If a placeholder is unknown or given twice, a regular expression is wrong or could match for ever, or two
            free placeholders touch, so that nothing says where one ends.
        """
        if not text or len(text) > _LONGEST_PATTERN:
            raise _wrong(text[:60], f"it has {len(text)} characters; 1 to {_LONGEST_PATTERN} are accepted")
        pieces, names, wildcards, before, folders = [], set[str](), 0, None, 0
        for literal, name, own_regex in _scan(text):
            if literal:
                pieces.append(re.escape(literal))
                before, folders = None, folders + literal.count("/")
                continue
            if name not in _DEFAULTS:
                raise _wrong(text, f"{{{name}}} is no placeholder; accepted: {', '.join(_DEFAULTS)}")
            if name in names and name != "image":
                raise _wrong(text, f"{{{name}}} occurs twice; use {{*}} or a regular expression for the second")
            regex = _checked(own_regex, text) if own_regex is not None else _DEFAULTS[name]
            if regex in _FREE and before in _FREE:
                raise _wrong(
                    text, f"nothing says where the text before {{{name}}} ends; write text or a regex between them"
                )
            before, folders = regex, folders + _slashes(own_regex or "")
            group = f"_{wildcards}" if name == "*" else f"image_{wildcards}" if name in names else name
            wildcards += name == "*" or name in names
            if name != "*":
                names.add(name)
            pieces.append(f"(?P<{group}>{regex})")
        try:
            compiled = re.compile("".join(pieces))
        except re.error as error:
            raise _wrong(text, f"its regular expressions do not fit together ({error})") from error
        if not names:
            raise _wrong(text, f"it has no placeholder; accepted: {', '.join(_DEFAULTS)}")
        literals = "".join(literal or "\0" for literal, _, _ in _scan(text))
        return cls(text, compiled, folders + 1, _SUFFIX.search(literals) is not None)

    def match(self, relative_path: str) -> PatternMatch | None:
        """What the pattern reads from a path, or None if it does not fit.

        Examples
        --------
        >>> FilePattern.parse("r{row}c{column}f{fov}-ch{channel}").match("r01c03f02-ch5.tiff").fields["well"]
        'A03'
        >>> FilePattern.parse("{plate}_{well}").match("notes.txt") is None
        True
        """
        return match_first((self,), relative_path)

    def _read(self, path: str, starts: Sequence[int], stem: int) -> PatternMatch | None:
        """What it reads from a path whose parts begin at ``starts`` (the last first) and whose suffix at ``stem``."""
        if len(starts) < self._components:
            return None
        start = starts[self._components - 1]
        found = self._regex.fullmatch(path, start, len(path) if self._has_suffix else stem)
        if found is None:
            return None
        fields: dict[str, str] = {}
        for name, value in found.groupdict().items():
            if name.startswith("image_") and value is not None:
                fields["image"] = f"{fields['image']} {value}"
            elif not name.startswith("_") and value is not None:
                fields[name] = value
        if "well" not in fields and "row" in fields and "column" in fields:
            well = _well(fields["row"], fields["column"])
            if well is not None:
                fields["well"] = well
        return PatternMatch(fields, _starred(path, found), path[:start].rstrip("/"))


def match_first(patterns: Sequence[FilePattern], relative_path: str) -> PatternMatch | None:
    """What the first of several patterns that fits reads from a path, or None if none fits.

    Examples
    --------
    >>> stacks, planes = FilePattern.parse("ZStep_{z}/{well}"), FilePattern.parse("{well}")
    >>> match_first((stacks, planes), "ZStep_2/A01.tif").fields, match_first((stacks, planes), "x/A01.tif").fields
    ({'z': '2', 'well': 'A01'}, {'well': 'A01'})
    """
    path = relative_path.replace("\\", "/")
    if len(path) > _LONGEST_PATH:
        return None
    starts = [0, *(at + 1 for at, character in enumerate(path) if character == "/")][::-1]
    suffix = _SUFFIX.search(path, max(0, len(path) - _LONGEST_SUFFIX))
    stem = suffix.start() if suffix else len(path)
    for pattern in patterns:
        found = pattern._read(path, starts, stem)
        if found is not None:
            return found
    return None


@dataclass(frozen=True)
class FileGroup:
    """The files of one image.

    Parameters
    ----------
    identity : str
        Their common path, channel and ``{*}`` parts replaced by ``*``.
    fields : mapping
        Placeholder to text, without the channel.
    files : mapping
        Channel to its paths, in natural order; more than one path is a conflict that the caller must report. The
        channel is ``""`` where the pattern has none.
    folder : str
        Their path before what the pattern reads.
    """

    identity: str
    fields: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    folder: str = ""

    @property
    def conflicts(self) -> tuple[str, ...]:
        """The channels that have several files."""
        return tuple(channel for channel, paths in self.files.items() if len(paths) > 1)


@dataclass(frozen=True)
class Grouping:
    """Files grouped into images, in natural order (s2 before s10), and the paths that the pattern does not fit."""

    groups: tuple[FileGroup, ...]
    unmatched: tuple[str, ...]


def group_files(paths: Iterable[str], pattern: NameReader) -> Grouping:
    """Group relative paths into images; one image is multi-channel at one z and one t.

    Examples
    --------
    >>> grouping = group_files(["a_w2.tif", "a_w1.tif", "b_w1.tif", "notes"], FilePattern.parse("{image}_w{channel}"))
    >>> [(group.identity, dict(group.files)) for group in grouping.groups]
    [('a_w*.tif', {'1': ('a_w1.tif',), '2': ('a_w2.tif',)}), ('b_w*.tif', {'1': ('b_w1.tif',)})]
    >>> grouping.unmatched
    ('notes',)
    """
    found: dict[str, dict[str, list[str]]] = {}
    said: dict[str, PatternMatch] = {}
    unmatched = []
    for path in sorted(set(paths), key=natural_key):
        match = pattern.match(path)
        if match is None:
            unmatched.append(path)
            continue
        said.setdefault(match.identity, match)
        found.setdefault(match.identity, {}).setdefault(match.fields.get("channel", ""), []).append(path)
    groups = []
    for identity in sorted(found, key=natural_key):
        channels = found[identity]
        files = {channel: tuple(channels[channel]) for channel in sorted(channels, key=natural_key)}
        fields = {name: text for name, text in said[identity].fields.items() if name != "channel"}
        groups.append(FileGroup(identity, fields, files, said[identity].folder))
    return Grouping(tuple(groups), tuple(unmatched))


def natural_key(text: str) -> tuple[tuple[str | int, ...], str]:
    """A sort key that takes digits for numbers.

    Examples
    --------
    >>> sorted(["s10", "s2", "s02"], key=natural_key)
    ['s02', 's2', 's10']
    """
    parts = re.split(r"([0-9]+)", text)  # text and digits in turn, so that only like is compared with like
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts)), text


def _scan(text: str) -> Iterable[tuple[str, str, str | None]]:
    """(literal, "", None) and ("", placeholder, its regex) in turn."""
    position, literal = 0, ""
    while position < len(text):
        if text.startswith(("{{", "}}"), position):
            literal, position = literal + text[position], position + 2
        elif text[position] == "}":
            raise _wrong(text, f"the brace at character {position} closes nothing; a literal brace is '}}}}'")
        elif text[position] != "{":
            literal, position = literal + text[position], position + 1
        else:
            end = _closing(text, position)
            if literal:
                yield literal, "", None
                literal = ""
            name, colon, regex = text[position + 1 : end].partition(":")
            yield "", name, regex if colon else None
            position = end + 1
    if literal:
        yield literal, "", None


def _closing(text: str, start: int) -> int:
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise _wrong(text, f"the brace at character {start} is not closed")


def _slashes(regex: str) -> int:
    """How many slashes a regular expression reads; those in ``[^/]`` are none that it reads."""
    return re.sub(r"\[[^\]]*\]", "", regex).count("/")


def _checked(regex: str, text: str) -> str:
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise _wrong(text, f"{regex!r} is no regular expression ({error})") from error
    if not regex or compiled.groupindex or re.search(r"\\[1-9]|\(\?[P(]", regex):
        raise _wrong(
            text, f"{regex!r} is empty or has named groups or back references, which a placeholder cannot have"
        )
    if _NESTED_REPEAT.search(regex):
        raise _wrong(
            text, f"{regex!r} repeats what already repeats and could match for ever; write it without the inner one"
        )
    return f"(?:{regex})"


def _well(row: str, column: str) -> str | None:
    if row.isdigit():
        number, letters = int(row), ""
        while number > 0:
            number, letter = divmod(number - 1, 26)
            letters = chr(ord("A") + letter) + letters
        row = letters
    return f"{row.upper()}{int(column):02d}" if row else None


def _starred(path: str, found: re.Match[str]) -> str:
    spans = [found.span(name) for name in found.re.groupindex if name == "channel" or name.startswith("_")]
    identity, position = "", 0
    for start, end in sorted(span for span in spans if span[0] >= 0):
        identity += path[position:start] + "*"
        position = end
    return re.sub(r"\*+", "*", identity + path[position:])


def _wrong(text: str, reason: str) -> RecipeError:
    return RecipeError(f"the file pattern {text!r} cannot be used: {reason}")
