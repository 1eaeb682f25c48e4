"""Names and their typed arguments; a name stands for one thing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import run

from rmab_opt import registry
from rmab_opt.actions import Constraint
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions.policy import POLICIES, policy
from rmab_opt.errors import ModelError

TAKEN = "is taken by"


@pytest.fixture
def forget():
    """Names registered in a test are forgotten after it."""
    before = {kind: dict(known) for kind, known in registry._TABLE.entries.items()}
    yield
    for kind, known in before.items():
        for name in set(registry._TABLE.entries[kind]) - set(known):
            if registry._TABLE.entries[kind][name].make.__module__ == __name__:
                del registry._TABLE.entries[kind][name]


@pytest.fixture
def own(forget):
    @policy("registry_own")
    def make(model, *, depth: int, width: float = 0.5, label: str | None = None, fast: bool = False):
        """An own policy
        that says what it does.

        More about it.
        """
        return model, depth, width, label, fast

    return make


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("whittle", "whittle", {}),
        ("whittle:finite=true", "whittle", {"finite": True}),
        ("sampling", "sampling", {}),
        ("sampling:5", "sampling", {"draws": 5}),
        ("sampling:draws=5", "sampling", {"draws": 5}),
        ("iterative_dqn:runs/a", "iterative_dqn", {"run": "runs/a"}),
        ("iterative_dqn:run=runs/a", "iterative_dqn", {"run": "runs/a"}),
        ("iterative_dqn:runs/seed=3/a:b", "iterative_dqn", {"run": "runs/seed=3/a:b"}),
        ("iterative_dqn:7", "iterative_dqn", {"run": "7"}),
        ("registry_own:3", "registry_own", {"depth": 3}),
        ("registry_own:0", "registry_own", {"depth": 0}),
        ("registry_own:depth=3,width=2,fast=true", "registry_own", {"depth": 3, "width": 2.0, "fast": True}),
        ("registry_own:depth=3,label=12", "registry_own", {"depth": 3, "label": "12"}),
    ],
)
def test_a_name_and_its_arguments_are_read(own, text, name, arguments):
    entry, given = registry.parse("policy", text)
    assert entry.name == name
    assert given == arguments
    assert {key: type(value) for key, value in given.items()} == {key: type(v) for key, v in arguments.items()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("whitle", "no policy 'whitle'"),
        ("whitle", "did you mean 'whittle'?"),
        ("myopic:3", "no argument is taken"),
        ("iterative_dqn", "one argument is missing: run"),
        ("iterative_dqn:", "one argument is missing: run"),
        ("iterative_dqn", "write 'iterative_dqn:run=...'"),
        ("sampling:draw=5", "unknown argument 'draw'"),
        ("sampling:draw=5", "did you mean 'draws'?"),
        ("sampling:draws=1,draws=2", "'draws' stands twice"),
        ("sampling:many", "draws"),
        ("sampling:2.5", "draws"),
        ("sampling:true", "draws"),
        ("sampling:nan", "draws"),
        ("registry_own:width=1", "one argument is missing: depth"),
        ("registry_own:depth=1,width=wide", "width"),
        ("registry_own:depth=1,fast=2", "fast"),
    ],
)
def test_wrong_names_and_arguments_are_refused_in_words(own, text, said):
    with pytest.raises(ModelError) as refused:
        registry.parse("policy", text)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", [["whittle"], {"a": 1}, None, 3, True])
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(ModelError, match="no policy"):
        registry.find("policy", name)
    with pytest.raises(ModelError, match="is no name"):
        registry.parse("policy", name)


def test_what_a_maker_gets(own):
    assert registry.make("policy", "registry_own:depth=2,label=x", "model") == ("model", 2, 0.5, "x", False)
    entry = registry.find("policy", "registry_own")
    assert entry.line == "An own policy that says what it does"
    assert entry.signature() == "registry_own:depth=...,width=0.5,label=None,fast=False"
    assert entry.described() == {"depth": None, "width": "0.5", "label": "null", "fast": "false"}


def test_names_are_split_at_commas_but_not_arguments():
    text = "none, sampling:draws=5 ,own:depth=2,width=3,runs/a=b,iterative_dqn:runs/a,whittle,"
    assert registry.split(text) == [
        "none", "sampling:draws=5", "own:depth=2,width=3,runs/a=b", "iterative_dqn:runs/a", "whittle",
    ]  # fmt: skip


def test_a_second_policy_of_a_name_is_an_error(own):
    with pytest.raises(ModelError, match=r"policy 'registry_own' is taken by .*own"):

        @policy("registry_own")
        def other(model):
            return None

    with pytest.raises(ModelError, match=rf"policy 'myopic' {TAKEN}"):
        policy("myopic")(own)


def test_a_second_definition_under_the_same_function_name_is_an_error_too(forget):
    @policy("registry_twice")
    def make(model):
        return 1

    with pytest.raises(ModelError, match=TAKEN):

        @policy("registry_twice")
        def make(model):
            return 2


def test_the_same_lines_run_again_are_no_second_registration(forget):
    for _ in range(2):

        @policy("registry_again")
        def make(model):
            return 1

        class Again(Constraint, kind="registry_again"):
            def build(self, block, act, columns):
                pass

            def violations(self, action, columns):
                return []

            def describe(self):
                return "nothing"


def test_a_second_constraint_class_of_a_kind_is_an_error():
    for taken in ("budget", "scheduling"):
        with pytest.raises(ModelError, match=rf"constraint kind '{taken}' {TAKEN}"):

            class Other(Budget, kind=taken):
                pass

    assert registry.find("constraint", "budget").make is Budget


def test_a_name_that_is_taken_is_refused_before_anything_was_looked_up():
    """The newcomer is told at once, although the package's own policies have not been imported by then."""
    code = (
        "from rmab_opt.decisions.policy import policy\nfrom rmab_opt.errors import ModelError\n"
        "try:\n    policy('none')(lambda model: model)\nexcept ModelError as error:\n    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("policy 'none' is taken by rmab_opt.decisions.policies")


@pytest.mark.parametrize("name", ["", "two words", "a:b", "a,b", "a=b", 3, None])
def test_names_that_could_not_be_written_are_refused(name):
    with pytest.raises(ModelError, match="is no name for a policy"):
        policy(name)
    with pytest.raises(ModelError, match="nothing is registered as 'polici'"):
        registry.register("polici", "x")


def test_policies_are_seen_through_a_read_only_view(own):
    assert {"none", "random", "myopic", "whittle", "registry_own"} <= set(POLICIES)
    assert POLICIES["registry_own"] is own
    assert len(POLICIES) == len(list(POLICIES)) == len(registry.names("policy"))
    assert "nobody" not in POLICIES
    with pytest.raises(TypeError):
        POLICIES["mine"] = own


def test_every_registered_thing_has_a_line_and_readable_arguments():
    for kind in registry.PARTS:
        for entry in registry.entries(kind):
            assert entry.line, (kind, entry.name)
            assert entry.name in entry.signature()
            # What every constraint kind takes is said once, not for each.
            assert set(entry.described()) == set(entry.arguments) - set(getattr(entry.make, "common", ()))


@pytest.mark.parametrize("kind", list(registry.PARTS))
def test_the_command_line_lists_what_is_registered(kind):
    rows = json.loads(run("kinds", kind, "--json").out)
    assert [row["name"] for row in rows] == registry.names(kind)
    text = run("kinds", kind).out
    assert all(row["name"] in text and row["line"] in text for row in rows)


def test_policies_and_kinds_are_listed_and_unknown_kinds_refused():
    assert [row["name"] for row in json.loads(run("policies", "--json").out)] == registry.names("policy")
    counts = {row["kind"]: row["count"] for row in json.loads(run("kinds", "--json").out)}
    assert counts == {kind: len(registry.names(kind)) for kind in registry.PARTS}
    assert "draws = 100" in run("policies").out
    answer = run("kinds", "constraints")
    assert answer.code == 2
    assert "did you mean 'constraint'?" in answer.err


def test_help_loads_light_modules_only():
    """Nothing but the verbs, the registry and a setting's empty top is imported to print the help."""
    code = (
        "import sys\nfrom rmab_opt import cli\nsys.argv = ['rmab-opt', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted(name for name in sys.modules if name.partition('.')[0] == 'rmab_opt'))\n"
        "print('HEAVY', *sorted({'torch', 'pyomo', 'numpy', 'scipy', 'highspy', 'pydantic', 'networkx', 'ruamel',\n"
        "    'joblib', 'matplotlib', 'rich', 'gymnasium'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, heavy = (line.split()[1:] for line in done.stdout.splitlines()[-2:])
    settings = {f"rmab_opt.settings.{name}" for name in registry.settings()}
    light = {
        "rmab_opt",
        "rmab_opt._startup",
        "rmab_opt.errors",
        "rmab_opt.progress",
        "rmab_opt.registry",
        "rmab_opt.settings",
        *settings,
    }
    light |= {f"{name}.verbs" for name in settings}
    assert [name for name in loaded if name not in light and not name.startswith("rmab_opt.cli")] == []
    assert heavy == []
    for heading in ("This week:", "A programme:", "Research:", "Exit codes:"):
        assert heading in done.stdout


def test_what_a_setting_brings_is_the_setting_s_whatever_its_module():
    """By the folder that its maker stands in; the kernel's own and a file's belong to nobody."""
    brought = dict.fromkeys((name for name, setting in registry.settings().items() if not setting.hidden), 0)
    for kind in registry.PARTS:
        for entry in registry.entries(kind):
            package = entry.make.__module__.split(".")
            expected = package[2] if package[:2] == ["rmab_opt", "settings"] else ""
            assert entry.setting == expected, entry
            if expected:
                brought[expected] += 1
    assert all(brought.values()), brought


def test_a_plugin_is_loaded_once_and_what_is_no_python_file_is_refused(tmp_path, forget):
    file = tmp_path / "own_rule.py"
    file.write_text("ANSWER = 41 + 1\n")
    module = registry.load_plugin(file)
    try:
        assert module.ANSWER == 42
        assert registry.load_plugin(str(file)) is module
        assert str(file.resolve()) in registry.plugins()
    finally:
        del registry._TABLE.plugins[str(file.resolve())], sys.modules[module.__name__]
    (tmp_path / "own_rule.txt").write_text("ANSWER = 42\n")
    for missing in ("own_rule.txt", "other.py"):
        with pytest.raises(ModelError, match="no such Python file"):
            registry.load_plugin(tmp_path / missing)
