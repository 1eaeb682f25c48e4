"""What a setting and its generators promise: light to import, named as its own, said in words, gone when hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmab_opt import registry
from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, generate
from rmab_opt.testing.contract import Promise, keep, require, same

__all__ = ["DOMAIN_PROMISES", "SETTING_PROMISES", "check_domain", "check_setting"]

HEAVY = ("pyomo", "torch", "highspy", "scipy", "pandas", "matplotlib")


# --------------------------------------------------------------------------------------------------------- generators
@dataclass(frozen=True)
class DomainCase:
    """A generator with the arguments that make its instances small."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def made(self, seed: int = 0, **more: Any) -> Instance:
        """An instance of a seed."""
        return generate(self.name, **{**self.arguments, "seed": seed, **more})


def _numbers(instance: Instance) -> list[np.ndarray]:
    """Every number and word that makes an instance what it is, as arrays."""
    problem = instance.problem
    found = [np.asarray(problem.start), np.array([problem.horizon, problem.discount])]
    found += [np.array(cells) for cells in problem.arms.table.columns.values()]
    found += [np.array(cells) for table in instance.tables.values() for cells in table.columns.values()]
    if instance.columns is not None:
        found += [np.array(instance.columns[0]), np.asarray(instance.columns[1])]
    rng, dynamics = np.random.default_rng(0), problem.dynamics
    for _ in range(8):
        state = rng.integers(dynamics.n_states, size=problem.n_arms)
        action = rng.integers(dynamics.n_actions, size=problem.n_arms)
        found += [*problem.step(state, action, problem.start_shared, rng)[:2]]
        found += [problem.expected_reward(state, action, problem.start_shared)]
    return found


def same_seed_same_instance(case: DomainCase) -> None:
    """One seed gives one instance, to the last bit."""
    one, two = (_numbers(case.made(3)) for _ in range(2))
    require(all(same(a, b) for a, b in zip(one, two, strict=True)), "two instances of one seed differ")


def another_seed_another_instance(case: DomainCase) -> None:
    """Another seed gives another instance."""
    one, two = _numbers(case.made(3)), _numbers(case.made(4))
    require(len(one) != len(two) or any(not same(a, b) for a, b in zip(one, two, strict=True)), "they are the same")


def asked_for_is_given(case: DomainCase) -> None:
    """Numbers of arms, rounds and the discount are those asked for."""
    instance, known = case.made(horizon=3), registry.find("domain", case.name).arguments
    require(instance.problem.horizon == 3, f"horizon is {instance.problem.horizon}, asked for 3")
    if "n_arms" in case.arguments:
        require(
            instance.problem.n_arms == case.arguments["n_arms"],
            f"{instance.problem.n_arms} arms, {case.arguments['n_arms']} were asked for",
        )
    if "discount" in known:
        found = case.made(discount=0.5).problem.discount
        require(found == 0.5, f"discount is {found}, asked for 0.5")


def columns_fit_the_arms(case: DomainCase) -> None:
    """What can be chosen has ids, effects and attributes of matching sizes."""
    instance = case.made()
    if instance.columns is None:
        return
    ids, effect = instance.columns
    shape = (len(ids), instance.problem.n_arms)
    require(np.shape(effect) == shape, f"the effect has shape {np.shape(effect)}, not {shape}")
    require(len(set(ids)) == len(ids), "two columns have one id")
    for name, cells in instance.attributes.items():
        require(len(cells) == len(ids), f"attribute {name} has {len(cells)} cells for {len(ids)} columns")


def refuses_unknown_arguments(case: DomainCase) -> None:
    """Arguments that it does not take, or no arms at all, are refused by name."""
    entry = registry.find("domain", case.name)
    try:
        entry.check({"no_such_argument": 1})
    except ValueError as error:
        require("no_such_argument" in str(error), "an unknown argument is refused without its name")
    else:
        require(False, "an unknown argument is accepted")
    try:
        case.made(n_arms=0)
    except ModelError as error:
        require(bool(error.message), "no arms are refused without a word")
    else:
        require(False, "an instance without arms is made")


DOMAIN_PROMISES: tuple[Promise, ...] = (
    same_seed_same_instance,
    another_seed_another_instance,
    asked_for_is_given,
    columns_fit_the_arms,
    refuses_unknown_arguments,
)


def check_domain(
    name: str, arguments: Mapping[str, Any] | None = None, *, promises: Sequence[Promise] = DOMAIN_PROMISES
) -> None:
    """Hold a generator of seeded instances to its promises.

    Parameters
    ----------
    arguments
        Those that make its instances small.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the domain and the promise.
    """
    keep(f"domain {name!r}", DomainCase(name, dict(arguments or {})), promises)


# ----------------------------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class SettingCase:
    """An installed setting."""

    name: str

    @property
    def setting(self) -> registry.Setting:
        """Where it is."""
        return registry.need(self.name)

    @property
    def brings(self) -> list[registry.Entry]:
        """Everything that it registers."""
        return [
            e for kind in registry.PARTS if kind != "verb" for e in registry.entries(kind) if e.setting == self.name
        ]


def imports_nothing_heavy(case: SettingCase) -> None:
    """Its package imports without Pyomo, torch, solvers or scipy."""
    code = f"import sys, {case.setting.package}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    require(done.returncode == 0, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "does not import")
    require(not done.stdout.strip(), f"loads {done.stdout.strip()}")


def says_what_it_is(case: SettingCase) -> None:
    """The setting has a line of its own, and everything that it brings has one."""
    require(case.setting.line, "the package has no docstring")
    silent = [f"{entry.kind} {entry.name}" for entry in case.brings if not entry.line]
    require(not silent, f"no line for {', '.join(silent)}")


def arguments_are_typed(case: SettingCase) -> None:
    """Arguments of what it brings can be checked, and unknown ones are refused by name."""
    for entry in case.brings:
        try:
            entry.check({"no_such_argument": 1})
        except ValueError as error:
            require("no_such_argument" in str(error), f"{entry.kind} {entry.name} refuses without naming the argument")
        else:
            require(False, f"{entry.kind} {entry.name} takes an unknown argument")


def hidden_it_is_missed_by_name(case: SettingCase) -> None:
    """Treated as not installed, what it brings is gone, and asking for it says which setting is needed."""
    asked = [(entry.kind, entry.name) for entry in case.brings]
    code = (
        "from rmab_opt import registry\nfrom rmab_opt.errors import ModelError\n"
        f"for kind, name in {asked!r}:\n"
        "    if name in registry.names(kind): print(kind, name, 'is still there')\n"
        "    try: registry.find(kind, name)\n"
        "    except ModelError as error:\n"
        f"        if {case.name!r} not in str(error): print(kind, name, error)\n"
        "    else: print(kind, name, 'is found')\n"
    )
    hidden = ",".join(filter(None, [os.environ.get(registry.HIDDEN_BY, ""), case.name]))
    environment = {**os.environ, registry.HIDDEN_BY: hidden}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    require(done.returncode == 0, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "fails")
    require(not done.stdout.strip(), done.stdout.strip())


SETTING_PROMISES: tuple[Promise, ...] = (
    imports_nothing_heavy,
    says_what_it_is,
    arguments_are_typed,
    hidden_it_is_missed_by_name,
)


def check_setting(name: str, *, promises: Sequence[Promise] = SETTING_PROMISES) -> None:
    """Hold a setting to what every one promises; what it brings is held to its own contract by the other checks.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the setting and the promise.
    ModelError
        When it is not installed.
    """
    registry.need(name)
    keep(f"setting {name!r}", SettingCase(name), promises)
