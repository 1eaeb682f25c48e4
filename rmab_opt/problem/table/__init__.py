"""Tables from sheets, data frames or columns: nothing is guessed, and nothing is lost without a word."""

from rmab_opt.problem.table.conventions import Conventions, Readings, readings
from rmab_opt.problem.table.log import Log, Remark
from rmab_opt.problem.table.table import Table, TableLike, is_table_like, nearest

__all__ = ["Conventions", "Log", "Readings", "Remark", "Table", "TableLike", "is_table_like", "nearest", "readings"]
