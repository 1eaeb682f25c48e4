"""Solver profiles: named sets of options, as TOML files or built in code."""

from __future__ import annotations

import difflib
import importlib.resources
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rmab_opt.errors import ModelError
from rmab_opt.records import read_regular

__all__ = ["Profile", "load_profile", "profile_names", "repeatable"]


@dataclass(frozen=True)
class Profile:
    """A named set of solver options; one of the shipped ones, a TOML file, or built in code.

    Raises
    ------
    ModelError
        When a value is out of range; names the profile and the field.
    """

    name: str
    """How messages and reports call it; of a file, its stem."""
    about: str = ""
    """What it is for, one sentence."""
    solver: str = "highs"
    """``highs`` (embedded), or ``gurobi``, ``scip``, ``cbc`` through Pyomo's own interface."""
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Options under the solver's own names."""
    threads: int = 1
    """Solver threads. HiGHS shares one pool per process: see :class:`Session`."""
    seconds: float | None = None
    """Wall-clock limit of one solve; None for none. Makes results depend on the machine's load."""
    nodes: int | None = None
    """Branch-and-bound node limit of one solve; None for none. Repeatable."""
    relative_gap: float = 1e-4
    """A MILP counts as solved at this gap, as a share of what is decided: the constant part does not count."""
    absolute_gap: float = 1e-6
    """A MILP counts as solved at this gap, as a multiple of the largest coefficient's power of two."""
    proof_seconds: float | None = None
    """Wall-clock limit of a proof by lists and trees; 0 for none; None for as long as the solve took, at least 1 s, and
    for trees of networks 20 times as long, at least 2 s."""
    proof_nodes: int | None = None
    """Node limit of a proof's trees in place of the clock; None for the clock. Repeatable."""
    at_limit: Literal["best_with_gap", "raise"] = "best_with_gap"
    """At a limit: return the best found with its gap, or raise SolverError."""
    seed: int = 0
    """Seed of the solver's own random choices."""
    interruptible: bool = True
    """Ctrl-C stops a running solve. Costs a thread and a call-back, up to 5 % of a small solve."""
    log: bool = False
    """Keep the solver's log in ``Result.log``."""
    unsafe: bool = False
    """Take options that make a solver call wrong answers optimal: tolerances above 1e-5, scales, objective cut-offs."""

    def __post_init__(self) -> None:
        def demand(holds: bool, name: str, wanted: str) -> None:
            if not holds:
                raise ModelError(
                    f"solver profile {self.name!r}: {name} is {getattr(self, name)!r}.", f"set {name} to {wanted}."
                )

        def number(value: object, kind: type | tuple[type, ...]) -> bool:
            return isinstance(value, kind) and not isinstance(value, bool)

        demand(self.solver in SOLVERS, "solver", f"one of {', '.join(SOLVERS)}")
        threads = number(self.threads, int) and 1 <= self.threads <= MOST_THREADS
        demand(threads, "threads", f"an integer from 1 to {MOST_THREADS}")
        demand(number(self.seed, int) and 0 <= self.seed < 2**31, "seed", "an integer from 0 to 2147483647")
        for name in ("seconds", "relative_gap", "absolute_gap", "proof_seconds"):
            value = getattr(self, name)
            known = value is None and name in ("seconds", "proof_seconds")
            demand(known or (number(value, (int, float)) and value >= 0), name, "a number of at least 0")
        for name in ("nodes", "proof_nodes"):
            value = getattr(self, name)
            demand(value is None or (number(value, int) and value >= 0), name, "a whole number of at least 0")
        demand(self.at_limit in ("best_with_gap", "raise"), "at_limit", "'best_with_gap' or 'raise'")
        for name in ("interruptible", "log", "unsafe"):
            demand(isinstance(getattr(self, name), bool), name, "true or false")
        for field_name, option in OWN_NAMES[self.solver].items():
            if option in self.options:
                raise ModelError(
                    f"solver profile {self.name!r}: options hold {option!r}, which is the field {field_name!r}.",
                    f"set {field_name} instead.",
                )
        if not self.unsafe:
            self._refuse_unsafe()
        if "mip_lifting_for_probing" in self.options:
            raise ModelError(
                f"solver profile {self.name!r}: mip_lifting_for_probing makes HiGHS call feasible models infeasible.",
                "remove the option.",
            )

    @property
    def clock(self) -> str | None:
        """What of it reads the clock, in words; None when a repeat gives the same answers however loaded a machine is.

        A proof's seconds count here only where they were given: without, a proof's share may move and no decision.
        """
        given = {"a solve": self.seconds, "a proof": None if self.proof_nodes is not None else self.proof_seconds}
        return ", ".join(f"{value:g} s {what}" for what, value in given.items() if value) or None

    def by_nodes(self) -> Profile:
        """The same with node limits in place of every clock, for experiments that must repeat."""
        nodes = self.nodes
        if self.seconds is not None:
            worth = max(1, round(NODES_A_SECOND * self.seconds))
            nodes = worth if nodes is None else min(nodes, worth)
        proof = self.proof_nodes
        if proof is None:
            proof = PROOF_NODES if self.proof_seconds is None else round(PROOF_NODES * self.proof_seconds)
        return replace(self, seconds=None, nodes=nodes, proof_seconds=None, proof_nodes=proof)

    def _refuse_unsafe(self) -> None:
        """Options under which HiGHS called 12 of 12 wrong answers optimal with a bound below the best action."""
        tolerances, others = UNSAFE[self.solver]
        for name, value in self.options.items():
            if name in tolerances and isinstance(value, int | float) and not value <= LOOSEST:
                what = f"{value!r}, above {LOOSEST:g}"
            elif name in others:
                what = f"{value!r}, which changes what the solver calls optimal"
            else:
                continue
            raise ModelError(
                f"solver profile {self.name!r}: {name} is {what}.",
                "remove the option, or set unsafe = true: bounds are then the solver's word only.",
            )


NODES_A_SECOND = 200
"""Nodes that :meth:`Profile.by_nodes` puts for a second of solving: the shipped models look at 100 to 1,000."""

PROOF_NODES = 1_500
"""Nodes of a proof's trees that it puts for a second."""

MOST_THREADS = 64
"""More threads than a solver makes use of; a thousand end the process where memory is short."""

LOOSEST = 1e-5
"""Largest tolerance that a profile takes without ``unsafe``."""

SOLVERS = ("highs", "gurobi", "scip", "cbc")
UNSAFE: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    solver: (frozenset(tolerances.split()), frozenset(others.split()))
    for solver, (tolerances, others) in {
        "highs": (
            "primal_feasibility_tolerance dual_feasibility_tolerance mip_feasibility_tolerance optimality_tolerance "
            "ipm_optimality_tolerance pdlp_optimality_tolerance kkt_tolerance primal_residual_tolerance "
            "dual_residual_tolerance complementarity_tolerance",
            "user_objective_scale user_cost_scale user_bound_scale objective_bound objective_target",
        ),
        "gurobi": ("FeasibilityTol OptimalityTol IntFeasTol BarConvTol", "ObjScale Cutoff BestObjStop BestBdStop"),
        "scip": (
            "numerics/feastol numerics/dualfeastol numerics/epsilon numerics/sumepsilon",
            "limits/primal limits/dual limits/objectivestop",
        ),
        "cbc": ("primalTolerance dualTolerance integerTolerance", "cutoff increment objectiveScale rhsScale"),
    }.items()
}
"""By solver: tolerances that must not be loose, and options that move the goal itself."""
_LIMITS = ("seconds", "nodes", "relative_gap", "absolute_gap", "proof_seconds", "proof_nodes", "at_limit")
OWN_KEYS = ("about", "threads", "seed", "interruptible", "log", "unsafe")
_TOP_KEYS = ("extends", "solver", *OWN_KEYS, "limits", *SOLVERS)
# The same six choices under each solver's own name: in a profile's solver table they set the profile's field, so that
# a value written either way is the one a session uses and a child profile overrides.
_FIELDS = ("threads", "seed", "seconds", "nodes", "relative_gap", "absolute_gap")
OWN_NAMES: dict[str, dict[str, str]] = {
    solver: dict(zip(_FIELDS, names.split(), strict=True))
    for solver, names in {
        "highs": "threads random_seed time_limit mip_max_nodes mip_rel_gap mip_abs_gap",
        "gurobi": "Threads Seed TimeLimit NodeLimit MIPGap MIPGapAbs",
        "scip": "parallel/maxnthreads randomization/randomseedshift limits/time limits/nodes limits/gap limits/absgap",
        "cbc": "threads randomSeed seconds maxNodes ratioGap allowableGap",
    }.items()
}


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return sorted({entry.name.removesuffix(".toml") for folder in _profile_folders() for entry in _toml_files(folder)})


def load_profile(profile: str | Path | Profile) -> Profile:
    """Solver profile by name or path.

    Parameters
    ----------
    profile
        Name of a shipped profile (``"quick"``), path of a TOML file (ends in ``.toml``), or a Profile, returned as is.

    Returns
    -------
    Profile
        With everything it extends filled in.

    Raises
    ------
    ModelError
        When nothing has that name, a key is unknown (names the nearest known one), a value is out of range, or
        profiles extend one another in a circle; names the file.
    """
    return profile if isinstance(profile, Profile) else Profile(**_profile_fields(profile, None, ()))


def repeatable(profile: str | Path | Profile) -> Profile:
    """:func:`load_profile` for experiments: of a shipped profile its counterpart that limits by nodes, not by a clock.

    A profile of the user's own keeps its clock: it was asked for, and :attr:`Profile.clock` says so.
    """
    found = load_profile(profile)
    return found.by_nodes() if not isinstance(profile, Profile) and str(profile) in profile_names() else found


def _profile_folders() -> list[Any]:
    """Folders that hold shipped profiles: inside the installed package first, beside the source tree second."""
    inside = importlib.resources.files("rmab_opt") / "solvers_cfg"
    beside = Path(__file__).resolve().parents[2] / "solvers_cfg"
    return [folder for folder in (inside, beside) if folder.is_dir()]


def _toml_files(folder: Any) -> Iterator[Any]:
    return (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _find_profile(profile: str | Path, folder: Any, asked_by: str) -> tuple[str, str, Any]:
    """Where it lies (for messages), its text, and the folder that ``extends`` is looked up in."""
    path, where = Path(profile), f"{asked_by}: extends: " if asked_by else ""
    if isinstance(profile, Path) or path.suffix == ".toml" or len(path.parts) > 1:
        if folder is not None and not path.is_absolute():
            path = folder / path
        if not path.is_file():
            raise ModelError(f"{where}there is no solver profile {str(path)!r}.", f"give a file or one of {_listed()}.")
        try:
            return str(path), read_regular(path).decode("utf-8-sig"), path.parent
        except UnicodeDecodeError:
            raise ModelError(f"{where}{path}: is not text in UTF-8.", "give a profile's TOML file.") from None
    for place in _profile_folders():
        entry = place / f"{profile}.toml"
        if entry.is_file():
            return str(entry), entry.read_text(encoding="utf-8"), None
    raise ModelError(
        f"{where}there is no solver profile {str(profile)!r}{nearest(str(profile), profile_names())}.",
        f"use one of {_listed()}, or the path of a .toml file.",
    )


def _listed() -> str:
    return ", ".join(profile_names())


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (nearest: x)``, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (nearest known: {close[0]!r})" if close else ""


def _profile_fields(profile: str | Path, folder: Any, seen: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments of Profile from one file and all it extends."""
    where, text, own_folder = _find_profile(profile, folder, seen[-1] if seen else "")
    if where in seen:
        raise ModelError(f"{where}: extends itself through {' > '.join((*seen, where))}.", "break the circle.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{where}: not valid TOML: {error}.", "correct that line.") from error
    _refuse_unknown(table, _TOP_KEYS, where)
    inherited: dict[str, Any] = {"options": {}}
    if "extends" in table:
        if not isinstance(table["extends"], str):
            raise ModelError(f"{where}: extends is {table['extends']!r}.", "name one profile.")
        inherited = _profile_fields(table["extends"], own_folder, (*seen, where))
    solver = table.get("solver", inherited.get("solver", "highs"))
    if solver not in SOLVERS:
        raise ModelError(
            f"{where}: solver is {solver!r}{nearest(str(solver), SOLVERS)}.", f"use one of {', '.join(SOLVERS)}."
        )
    for name in ("limits", *SOLVERS):
        if not isinstance(table.get(name, {}), dict):
            raise ModelError(f"{where}: {name} is {table[name]!r}.", f"make it a table [{name}].")
        if name in SOLVERS and name in table and name != solver:
            raise ModelError(f"{where}: has a table [{name}] but solves with {solver}.", f"set solver = {name!r}.")
    limits = table.get("limits", {})
    _refuse_unknown(limits, _LIMITS, f"{where}: limits")
    own = {key: table[key] for key in OWN_KEYS if key in table} | limits
    options = dict(table.get(solver, {}))
    for name, option in OWN_NAMES[solver].items():
        if option in options:
            if name in own:
                raise ModelError(f"{where}: {name} is also given as {solver}.{option}.", "keep one of the two.")
            own[name] = options.pop(option)
    # Another solver's option names mean nothing to this one, so they are not inherited.
    kept = inherited["options"] if inherited.get("solver", solver) == solver else {}
    return inherited | own | {"name": Path(where).stem, "solver": solver, "options": kept | options}


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            raise ModelError(f"{where}: unknown key {key!r}{nearest(key, known)}.", f"use one of {', '.join(known)}.")
