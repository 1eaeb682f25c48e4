"""Run a programme: what was decided, done and observed, round by round."""

from rmab_opt.programme.ledger import Ledger, Standing

__all__ = ["Ledger", "Standing"]
