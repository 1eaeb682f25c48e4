"""Deprecated address of :mod:`rmab_opt.settings.equity`; loads nothing until a name is asked for."""

from __future__ import annotations

from rmab_opt.registry import moved

# By name and at run time, as the registry finds settings: no kernel module imports one.
__getattr__ = moved("equity", "rmab_opt.planning.equity")
