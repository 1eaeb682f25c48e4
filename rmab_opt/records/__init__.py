"""Keep what happened: whole files, one writer at a time, logs that notice what was changed, a cohort by id."""

from rmab_opt.records.cohort import Cohort, Members
from rmab_opt.records.files import (
    allow,
    is_ours,
    json_text,
    keep_safe,
    read_object,
    read_regular,
    refuse_foreign,
    safe,
    write_atomically,
)
from rmab_opt.records.locks import held
from rmab_opt.records.log import Entry, Log

__all__ = [
    "Cohort",
    "Entry",
    "Log",
    "Members",
    "allow",
    "held",
    "is_ours",
    "json_text",
    "keep_safe",
    "read_object",
    "read_regular",
    "refuse_foreign",
    "safe",
    "write_atomically",
]
