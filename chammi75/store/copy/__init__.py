"""Copies of stores, whole or some of their images, between any two places: by ranges, resumable, every byte checked."""

from chammi75.store.copy.copy import CopyPlan, CopyReport, copy_store, plan_copy, run_copy

__all__ = ["CopyPlan", "CopyReport", "copy_store", "plan_copy", "run_copy"]
