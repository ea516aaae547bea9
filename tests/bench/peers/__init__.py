"""The libraries that the loader is measured against, each built and read as its own documentation advises.

A peer is one module with

    TITLE                                           its name in the table
    PACKAGES                                        distributions that it needs, for the versions in the table
    VARIANTS                                        other ways of storing or reading than the first, and their words
    build(folder, fields, variant)                  writes its own dataset of these fields
    batches(folder, task, *, turn, workers, remote, variant)
                                                    iterates over one epoch, opened anew, in its own random order:
                                                    tensors of the shape (batch, 1, height, width)

``task.finish`` is what all of them do alike once a plane is decoded: cut, and resize. What is a peer's own is how it
stores, finds, reads, decodes and shuffles. The same PNG bytes are in all of them, and gray planes stay gray: where a
library's documented way does worse than that (compresses them anew, decodes them to three channels), that way is the
variant ``documented``, measured besides. ``raw`` is its own fastest way without loss: pixels stored uncompressed.
"""

from __future__ import annotations

NAMES = ("reference", "opencv", "hugging_face", "web_dataset", "mosaic", "lit_data", "lance_format")
"""Modules of this package, in the order of the table."""

GENERAL = ("hugging_face", "web_dataset", "mosaic", "lit_data", "lance_format")
"""Those that are general loaders."""
