"""Vocabularies: the words that a field uses, and what else they are called."""

from __future__ import annotations

import re
from functools import cache, cached_property

from pydantic import Field, model_validator

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError
from chammi75.schemas.base import Model


class Term(Model):
    """One word of a vocabulary."""

    name: str = Field(min_length=1, description="The word.")
    id: str | None = Field(None, description="Its id in an ontology; null where no source states it.")
    synonyms: list[str] = Field([], description="Other words for it: stains, dyes, spellings.")
    evidence: str | None = Field(None, description="Where the id is stated.")


class Vocabulary(Model):
    """The words of one field of the record."""

    field: str = Field(description="The field, as imaging.channel_type.")
    title: str = Field(description="What the words name.")
    terms: list[Term] = Field(min_length=1, description="The words.")

    @model_validator(mode="after")
    def _words_differ(self) -> Vocabulary:
        seen: dict[str, str] = {}
        for term in self.terms:
            for word in (term.name, *term.synonyms):
                key = _key(word)
                if seen.setdefault(key, term.name) != term.name:
                    raise ValueError(f"{self.field}: {word!r} stands for both {seen[key]!r} and {term.name!r}")
        return self

    def find(self, word: str | None) -> Term | None:
        """The term that ``word`` names, whole or as a synonym; case, spaces and hyphens do not matter.

        Examples
        --------
        >>> vocabulary("channel_types").find("Hoechst 33342").name
        'nucleus'
        """
        if word is None:
            return None
        return self._terms_by_key.get(_key(word))

    @cached_property
    def _terms_by_key(self) -> dict[str, Term]:
        return {_key(word): term for term in self.terms for word in (term.name, *term.synonyms)}


def _key(word: str) -> str:
    return re.sub(r"[\s_\-]+", "", word).casefold()


@cache
def vocabulary(name: str) -> Vocabulary:
    """The vocabulary in ``catalog/vocabularies/<name>.yaml``: ``channel_types``, ``microscopy_types`` or ``organisms``.

    Raises
    ------
    RecipeError
        If there is none of that name, or it does not read.
    """
    import yaml

    path = declarations_folder("catalog") / "vocabularies" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise RecipeError(f"there is no vocabulary {name!r}; known are {', '.join(known)}")
    return Vocabulary.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
