"""Model files: YAML and tables in, a :class:`Model` out, every fault of a file at once with its line.

A file composes registered kinds and runs no code. What the kinds cannot say is twelve lines of Python.
"""

from rmab_opt.catalog.files import copy_model, model_folder, model_names
from rmab_opt.catalog.reading import check_names, load, load_with
from rmab_opt.catalog.self_test import check_model

__all__ = ["check_model", "check_names", "copy_model", "load", "load_with", "model_folder", "model_names"]
