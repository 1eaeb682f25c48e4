"""Show: a decision as a page for the people who carry it out."""

from rmab_opt.page.report import decision_page

__all__ = ["decision_page"]
