"""Finds each plane's guidance file (cell positions, as the published dataset has them) by a template of its path."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from chammi75.build.listing import file_url
from chammi75.errors import ChammiError, RecipeError
from chammi75.files import StorageOptions, filesystem_of, safe_relative_path

GUIDANCE_FIELDS: tuple[str, ...] = (
    *("study", "plate", "well", "row", "column", "fov", "image"),
    *("channel", "stem", "z", "t", "index"),
)
"""What a template may have in braces: fields of the file pattern, the file's name without its suffix, the z-slice and
the timepoint, and the channel's index from 0."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass
class GuidanceFinder:
    """Finds guidance files; folders are listed once, so that no plane costs a question to the server.

    Parameters
    ----------
    template : str
        Path below ``folder``, as ``guidance/{stem}-ch{index}.safetensors``.
    folder : str
        The recipe's folder, as a path or URL.
    storage_options : mapping, optional
        For its filesystem.

    Raises
    ------
    RecipeError
        If the template has an unknown placeholder, a brace too many, or leads out of the folder.
    """

    template: str
    folder: str
    storage_options: StorageOptions | None = None
    _listed: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        known = ", ".join(f"{{{name}}}" for name in GUIDANCE_FIELDS)
        for name in _PLACEHOLDER.findall(self.template):
            if name not in GUIDANCE_FIELDS:
                raise RecipeError(f"guidance: {{{name}}} in {self.template!r} is unknown; there are {known}")
        rest = _PLACEHOLDER.sub("x", self.template)
        if "{" in rest or "}" in rest:
            raise RecipeError(f"guidance: {self.template!r} has a brace that is no placeholder; there are {known}")
        try:
            safe_relative_path(rest)
        except ChammiError as error:
            raise RecipeError(f"guidance: {error}") from error

    def find(self, values: Mapping[str, str]) -> str | None:
        """URL of the guidance file of a plane that has these values; None if there is none."""
        if any(name not in values for name in _PLACEHOLDER.findall(self.template)):
            return None
        path = _PLACEHOLDER.sub(lambda found: values[found[1]], self.template)
        try:
            path = safe_relative_path(path)
        except ChammiError:  # a file's name that would lead out: nothing of ours lies there
            return None
        parent, name = posixpath.split(path)
        if parent not in self._listed:
            self._listed[parent] = self._names_in(parent)
        return file_url(self.folder, path) if name in self._listed[parent] else None

    def _names_in(self, parent: str) -> frozenset[str]:
        filesystem, path = filesystem_of(file_url(self.folder, parent), self.storage_options)
        try:
            entries = filesystem.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        return frozenset(posixpath.basename(str(entry).rstrip("/")) for entry in entries)
