"""Networks as rows of a program: weights in, an output expression and a record of everything added out.

Framework-free and usable alone on any Pyomo model: :func:`encode` takes a torch ``Sequential``, arrays or a file, a
block and its input variables, reads the inputs' polytope from the model around the block, and needs no bound from
the user beyond those of the variables.
"""

from rmab_opt.encoder.bounds import Rising, bounds, rising
from rmab_opt.encoder.encode import assemble, encode
from rmab_opt.encoder.network import Activation, Network
from rmab_opt.encoder.record import EncodingWarning, Record
from rmab_opt.encoder.rows import Rows
from rmab_opt.encoder.support import Support
from rmab_opt.encoder.trees import Tree, TreeEnsemble, TreeRecord, encode_trees

__all__ = [
    "Activation",
    "EncodingWarning",
    "Network",
    "Record",
    "Rising",
    "Rows",
    "Support",
    "Tree",
    "TreeEnsemble",
    "TreeRecord",
    "assemble",
    "bounds",
    "encode",
    "encode_trees",
    "read_model",
    "rising",
]


def __getattr__(name: str) -> object:
    # Readers load what they read when they are asked for.
    if name == "read_model":
        from rmab_opt.encoder.read.models import read_model

        return read_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
