"""The published CHAMMI-75 layout: a metadata table, one PNG per channel, guidance files beside them."""

from chammi75.readers.published.cached import CacheWarning, IndexFile, open_published, reopen
from chammi75.readers.published.csv_rows import PublishedProblem
from chammi75.readers.published.root import NotPublishedError, PublishedRoot, find_published_root
from chammi75.readers.published.table import PublishedTable, read_published

__all__ = [
    "CacheWarning",
    "IndexFile",
    "NotPublishedError",
    "PublishedProblem",
    "PublishedRoot",
    "PublishedTable",
    "find_published_root",
    "open_published",
    "read_published",
    "reopen",
]
