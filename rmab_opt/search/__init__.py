"""Maximise over an action set without a solver: exact search, climbing, adding one by one. Knows no bandit."""

from rmab_opt.search.branch_and_bound import SearchResult, maximise
from rmab_opt.search.hill_climb import climb_network, hill_climb
from rmab_opt.search.local_search import climb, climb_all, slopes

__all__ = ["SearchResult", "climb", "climb_all", "climb_network", "hill_climb", "maximise", "slopes"]
