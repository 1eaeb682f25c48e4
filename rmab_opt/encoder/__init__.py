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

__all__ = [
    "Activation",
    "EncodingWarning",
    "Network",
    "Record",
    "Rising",
    "Rows",
    "Support",
    "assemble",
    "bounds",
    "encode",
    "rising",
]
