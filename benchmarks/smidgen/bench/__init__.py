"""Benchmarks: what a Bundle costs on a Device, from raw samples to a table.

``measure`` runs Bundles on a Device and keeps every sample; ``report`` is a pure function of what
was kept.
"""

from smidgen.bench.errors import BenchError
from smidgen.bench.recipe import BenchRecipe

__all__ = ["BenchError", "BenchRecipe"]
