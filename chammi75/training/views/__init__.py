"""Views: what training sees of a batch of crops, made on the crops' device by tensor operations of whole batches.

One module for each thing that happens, in this order: ``saturation``, ``normalisation``, ``windows``, ``orientation``
and ``resampling`` (with ``bands``, its arithmetic), ``blur``, ``intensity``; ``multicrop`` puts them together.
"""

from __future__ import annotations

from chammi75.training.views.multicrop import Views, make_views

__all__ = ["Views", "make_views"]
