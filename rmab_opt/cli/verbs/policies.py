"""``rmab-opt policies``."""

from __future__ import annotations

from rmab_opt.cli.common import RESEARCH, Json
from rmab_opt.cli.verbs.kinds import listing
from rmab_opt.registry import register


@register("verb", "policies", group=RESEARCH)
def policies(as_json: Json = False) -> None:
    """List the policies that `evaluate --policies` takes, with their arguments."""
    listing("policy", as_json)
