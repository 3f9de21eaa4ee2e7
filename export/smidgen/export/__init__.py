"""Export: a float model in, verified Bundles out.

``ExportRecipe`` says what to make; ``smidgen.export.line`` makes it (and imports TensorFlow).
"""

from smidgen.export.errors import ExportError
from smidgen.export.recipe import ExportRecipe

__all__ = ["ExportError", "ExportRecipe"]
