"""What the catalog's card of a source says, for what a recipe leaves open."""

from __future__ import annotations

from collections.abc import Iterable

from chammi75.build.planned import Finding
from chammi75.catalog import Catalog
from chammi75.schemas.recipe import BuildRecipe

_FIELDS = ("platform", "title", "license", "doi")


def with_card(recipe: BuildRecipe) -> tuple[BuildRecipe, list[Finding]]:
    """A recipe with platform, title, licence and DOI of the card of its source, or of its study, where it states none.

    Returns
    -------
    recipe : BuildRecipe
    findings : list of Finding
        A ``note`` on what was taken over, and one where recipe and card state different licences.
    """
    catalog = Catalog()
    card = catalog.find_source(recipe.source) or catalog.find_source(recipe.study)
    if card is None:
        return recipe, []
    stated = catalog.provenance(card.id)
    taken = {
        name: getattr(stated, name)
        for name in _FIELDS
        if getattr(recipe, name) is None and getattr(stated, name) is not None
    }
    findings = []
    if taken:
        words = ", ".join(f"{name} {value!r}" for name, value in taken.items())
        findings.append(Finding("note", card.id, f"the catalog's card of {card.id} gives {words}"))
    if recipe.license is not None and stated.license not in (None, recipe.license):
        reason = f"the recipe says {recipe.license}, the catalog's card of {card.id} {stated.license}: which is right?"
        findings.append(Finding("note", card.id, reason))
    return recipe.model_copy(update=taken), findings


def card_hashes(names: Iterable[str | None]) -> dict[str, str]:
    """SHA-256 of the cards of sources, by their ids; names without a card are left out."""
    cards = (Catalog().find_source(name) for name in names)
    return {card.id: card.sha256 for card in cards if card is not None}
