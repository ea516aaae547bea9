"""Catalog: the cards of platforms and sources, their licences, and how to cite them."""

from chammi75.catalog.catalog import Catalog, SourceProvenance
from chammi75.catalog.citation import Cited, cite
from chammi75.catalog.licenses import LICENSE_SETS, licenses_in_set, permits

__all__ = ["LICENSE_SETS", "Catalog", "Cited", "SourceProvenance", "cite", "licenses_in_set", "permits"]
