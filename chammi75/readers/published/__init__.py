"""The published CHAMMI-75 layout: a metadata table, one PNG per channel, guidance files beside them."""

from chammi75.readers.published.csv_rows import PublishedProblem
from chammi75.readers.published.files import PublishedRoot, find_published_root
from chammi75.readers.published.table import PublishedTable, read_published

__all__ = ["PublishedProblem", "PublishedRoot", "PublishedTable", "find_published_root", "read_published"]
