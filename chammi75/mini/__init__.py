"""The embedded dataset: a microscope simulator that writes ordinary source files.

It needs no network and no data: cells, optics and camera are computed, so every cell's position, every duplicate and
every defect is known. What it writes is built like anyone's own files.
"""
