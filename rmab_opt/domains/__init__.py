"""Seeded instances of published settings, by name; one file a family."""

from rmab_opt.domains import contacts as _contacts  # noqa: F401 - registers its networks
from rmab_opt.domains import equity as _equity  # noqa: F401 - registers its settings
from rmab_opt.domains import inspection as _inspection  # noqa: F401 - registers its generator
from rmab_opt.domains import stateful as _stateful  # noqa: F401 - registers its settings
from rmab_opt.domains import synthetic as _synthetic  # noqa: F401 - registers its settings
from rmab_opt.domains.coupled import DOMAINS, Instance

__all__ = ["DOMAINS", "Instance"]
