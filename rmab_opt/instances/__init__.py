"""Seeded instances of cohorts that every kind of constraint can be tried on; one file a family."""

from rmab_opt.instances.instance import Instance, domain, generate

__all__ = ["Instance", "domain", "generate"]
