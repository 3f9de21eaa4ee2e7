"""The ``smidgen`` command: parses, calls the library, prints. Nothing is decided here.

stdout is data, stderr is progress. Exit status: 0 done, 1 something failed, 2 the command line or
the recipe is wrong, 130 interrupted.
"""
