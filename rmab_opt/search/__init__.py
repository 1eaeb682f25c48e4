"""Maximise over an action set or a box without a solver: exact search, climbing, halving. Knows no bandit."""

from rmab_opt.search.boxes import BoxOptions, BoxSearch, maximise_box, maximise_over
from rmab_opt.search.branch_and_bound import SearchResult, maximise
from rmab_opt.search.hill_climb import climb_network, hill_climb
from rmab_opt.search.local_search import climb, climb_all, slopes

__all__ = [
    "BoxOptions",
    "BoxSearch",
    "SearchResult",
    "climb",
    "climb_all",
    "climb_network",
    "hill_climb",
    "maximise",
    "maximise_box",
    "maximise_over",
    "slopes",
]
