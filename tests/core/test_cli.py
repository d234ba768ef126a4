"""The command line: what it prints, what it imports, and one sentence for everything a user can get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from headwise.cli import main
from headwise.hookspecs import HOOKS

STRIPES = """
'''Zebras.

They are striped.
'''

import attrs
import headwise
from headwise import hookimpl

@attrs.frozen(eq=False)
class Stripes:
    '''Counts stripes.

    The wider, the better.
    '''

    needed: int = attrs.field(converter=int)
    width: int = attrs.field(default=2, converter=int, metadata={"help": "Width of a stripe."})

    @hookimpl
    def head_scoring(self, attention):
        return attention.sum(dim=-1)

class Halve:
    '''Halves the tokens before layer 4.'''

    @hookimpl
    def token_pruning(self, geometry, budget):
        from headwise.plan import PruningPlan, Stage
        return PruningPlan(geometry, (Stage(4, budget.one_stage(geometry, 4), lambda evidence: evidence.attention()),))

RECIPE = ("token_pruning=zebra_halve",)
'''Halve and be done.'''

PRESET = headwise.Preset("token_pruning=zebra_halve", "zebra_stripes:needed=3", positions="compact")

class Twice:
    '''Halves twice.'''

    @hookimpl
    def token_pruning(self, geometry, budget):
        from headwise.plan import PruningPlan, Stage
        stages = (Stage(1, 40, lambda evidence: evidence.hidden()), Stage(6, 30, lambda evidence: None, merged=9))
        return PruningPlan(geometry, stages, reported=35.5)

def gallop(speed: int = 3) -> None:
    '''Gallop away.'''
    print("galloping", speed)

def stumble() -> None:
    '''Stumble.'''
    from headwise.errors import DataError
    raise DataError("a stone\\n  in the way; lift the hoof")

def interrupt() -> None:
    '''Interrupt.'''
    raise KeyboardInterrupt
"""


@pytest.fixture
def zebra(install):
    install(
        "zebra",
        "1.2",
        {
            "head_scoring": {"zebra_stripes": "zebra_mod:Stripes"},
            "token_pruning": {"zebra_halve": "zebra_mod:Halve", "grevy": "zebra_mod:Twice"},
            "recipe": {"zebra_recipe": "zebra_mod:RECIPE", "two-halves": "zebra_mod:PRESET"},
            "command": {
                "gallop": "zebra_mod:gallop",
                "stumble": "zebra_mod:stumble",
                "interrupt": "zebra_mod:interrupt",
                "broken": "zebra_lost:nothing",
            },
        },
        zebra_mod=STRIPES,
    )


def run(capsys, *words):
    status = main(list(words))
    return (status, *capsys.readouterr())


def listed(capsys, *words):
    status, out, err = run(capsys, "strategies", "--json", *words)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_listing_as_json_has_a_row_per_strategy(capsys, zebra):
    (row,) = [row for row in listed(capsys) if row["name"] == "zebra_stripes"]
    assert row == {
        "hook": "head_scoring",
        "name": "zebra_stripes",
        "distribution": "zebra",
        "version": "1.2",
        "summary": "Counts stripes.",
        "options": [
            {"name": "needed", "default": None, "required": True, "help": None},
            {"name": "width", "default": 2, "required": False, "help": "Width of a stripe."},
        ],
        "entry_point": "zebra_mod:Stripes",
        "clash": False,
    }
    assert "zebra_mod" not in sys.modules


def test_listing_of_one_hook_has_no_other(capsys, zebra):
    assert {"head_scoring"} == {row["hook"] for row in listed(capsys, "--hook", "head_scoring")}


def test_listing_shows_name_owner_options_and_summary(capsys, zebra):
    status, out, _ = run(capsys, "strategies", "--hook", "head_scoring")
    assert status == 0
    assert "  zebra_stripes  (zebra 1.2)  [needed=REQUIRED,width=2]\n      Counts stripes.\n" in out


def test_listing_marks_what_two_distributions_ship(capsys, zebra, install):
    install("quagga", "0.9", {"head_scoring": {"zebra_stripes": "zebra_mod:Stripes"}})
    clashing = [row for row in listed(capsys) if row["clash"]]
    assert [(row["distribution"], row["version"]) for row in clashing] == [("quagga", "0.9"), ("zebra", "1.2")]
    _, out, _ = run(capsys, "strategies", "--hook", "head_scoring")
    assert "zebra_stripes  (quagga 0.9)  [needed=REQUIRED,width=2]  CLASH\n" in out
    assert "CLASH: two distributions ship this name; write OWNER/NAME to choose one" in out


def test_listing_points_to_show_for_what_it_cannot_read(capsys, install):
    install("zebra", "1.2", {"kv_eviction": {"zebra_window": "zebra_lost:Window"}})
    _, out, _ = run(capsys, "strategies", "--hook", "kv_eviction")
    assert "  zebra_window  (zebra 1.2)  [?]\n      no summary: there is no source of zebra_lost\n" in out
    assert "?: not readable without importing it; see headwise show NAME" in out
    (row,) = [row for row in listed(capsys, "--hook", "kv_eviction") if row["name"] == "zebra_window"]
    assert (row["summary"], row["options"]) == (None, None)


def test_recipes_can_be_listed_too(capsys, zebra):
    (row,) = [row for row in listed(capsys, "--hook", "recipe") if row["name"] == "zebra_recipe"]
    assert row["summary"] == "Halve and be done."


def test_recipes_stand_below_the_strategies_without_options(capsys, zebra):
    rows = listed(capsys)
    assert {row["hook"] for row in rows} == {*HOOKS, "recipe"}
    (row,) = [row for row in rows if row["name"] == "two-halves"]
    assert (row["hook"], row["summary"], row["options"]) == ("recipe", "Zebras.", [])
    assert "zebra_mod" not in sys.modules
    _, out, _ = run(capsys, "strategies")
    assert "\n\nrecipe\n" in out
    assert "  two-halves  (zebra 1.2)\n      Zebras.\n" in out


def test_show_prints_what_a_recipe_says_of_itself_and_is_made_of(capsys, zebra):
    status, out, _ = run(capsys, "show", "two-halves")
    assert (status, out) == (0, PRESET_SHOWN)


PRESET_SHOWN = """recipe=two-halves
from         zebra 1.2
entry point  zebra_mod:PRESET

Zebras.

They are striped.

strategies
  token_pruning=zebra_halve
  zebra_stripes:needed=3

settings
  positions=compact
"""


def test_show_prints_documentation_options_and_owner(capsys, zebra):
    status, out, _ = run(capsys, "show", "zebra_stripes")
    assert (status, out) == (0, SHOWN)


SHOWN = """head_scoring=zebra_stripes
from         zebra 1.2
entry point  zebra_mod:Stripes
contract     headwise.hookspecs.Specs.head_scoring

Counts stripes.

The wider, the better.

options
  needed (required)
  width  = 2  Width of a stripe.
"""


@pytest.mark.parametrize(
    "name", ["zebra_recipe", "recipe=zebra_recipe", "zebra/zebra_recipe", "recipe=zebra/zebra_recipe"]
)
def test_show_finds_recipes_under_every_form_of_their_name(capsys, zebra, name):
    status, out, _ = run(capsys, "show", name)
    assert status == 0
    assert out.startswith("recipe=zebra_recipe\nfrom         zebra 1.2\n")
    assert out.endswith("Halve and be done.\n\nstrategies\n  token_pruning=zebra_halve\n")


def test_show_shows_everything_of_a_name_that_several_hooks_have(capsys, zebra, install):
    install("quagga", "0.9", {"recipe": {"zebra_halve": "zebra_mod:RECIPE"}})
    _, out, _ = run(capsys, "show", "zebra_halve")
    assert "token_pruning=zebra_halve\nfrom         zebra 1.2" in out
    assert "recipe=zebra_halve\nfrom         quagga 0.9" in out


PLAN = ("plan", "--shape", "llava-1.5-7b", "--strategy", "zebra_halve")


def planned(capsys, *words):
    status, out, err = run(capsys, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_plan_as_json_tells_budget_stages_and_costs(capsys, zebra):
    record = planned(capsys, *PLAN, "--tokens", "192", "--text", "64")
    keep = round((32 * 192 - 4 * 576) / 28)
    assert {"given": "tokens=192", "processed": (4 * 576 + 28 * keep) / 32, "kept": keep, "visual": 576} == record[
        "budget"
    ]
    assert [{"layer": 4, "keep": keep}] == record["stages"]
    assert [576] * 4 + [keep] * 28 == record["processed_per_layer"]
    assert record["strategies"]["token_pruning"] == "zebra_halve"
    memory = record["kv_bytes"]
    assert {"plan": (4 * 576 + 28 * keep) * 2**14, "unpruned": 576 * 2**19} == {
        key: memory["visual"][key] for key in ("plan", "unpruned")
    }
    assert memory["visual"]["plan"] + 64 * 2**19 == memory["with_text"]["plan"]
    assert (
        record["flops"]["formula"],
        pytest.approx(record["flops"]["visual"]["unpruned"], rel=1e-4),
    ) == ("gated", 3.817e12)


def test_plan_takes_the_other_formula_and_item_size(capsys, zebra):
    record = planned(capsys, *PLAN, "--keep", "64", "--formula", "fastv", "--itemsize", "4")
    assert pytest.approx(record["flops"]["visual"]["unpruned"], rel=1e-4) == 2.986e12
    assert record["kv_bytes"]["visual"]["unpruned"] == 576 * 2**20
    assert record["budget"]["kept"] == 64


def test_plan_takes_a_recipe(capsys, zebra):
    record = planned(capsys, "plan", "--shape", "demo-llava", "--recipe", "zebra_recipe", "--keep", "16")
    assert (record["recipe"], record["stages"]) == ("zebra_recipe", [{"layer": 4, "keep": 16}])


def test_plan_takes_a_preset_and_another_strategy_in_its_place(capsys, zebra):
    words = ("plan", "--shape", "demo-llava", "--recipe", "two-halves", "--keep", "16")
    record = planned(capsys, *words, "--strategy", "zebra_stripes:needed=4")
    assert record["strategies"]["head_scoring"] == "zebra_stripes:needed=4,width=2"
    assert (record["recipe"], record["stages"]) == ("two-halves", [{"layer": 4, "keep": 16}])


def test_plan_tells_what_a_method_would_report_and_what_it_merges(capsys, zebra):
    words = ("plan", "--shape", "demo-llava", "--strategy", "grevy")
    record = planned(capsys, *words)
    assert record["budget"] == {
        "given": "everything", "processed": (144 + 5 * 40 + 6 * 30) / 12, "reported": 35.5, "kept": 30, "visual": 144,
    }  # fmt: skip
    assert record["stages"] == [{"layer": 1, "keep": 40}, {"layer": 6, "keep": 30, "merged": 9}]
    _, out, _ = run(capsys, *words)
    assert "reported    35.50 by the method's own way of counting\n" in out
    assert "  layers 6-11    30, 9 of them merged\n" in out


def test_plan_without_pruning_costs_what_the_model_costs(capsys):
    record = planned(capsys, "plan", "--shape", "llava-1.5-7b")
    assert 1.0 == record["flops"]["with_text"]["ratio"] == record["kv_bytes"]["visual"]["ratio"]


def test_plan_in_words_gives_ranges_of_layers_and_ratios(capsys, zebra):
    status, out, _ = run(capsys, *PLAN, "--keep", "64")
    assert status == 0
    assert "kept        64 of 576 visual tokens after the last stage\n" in out
    assert "processed   128.00 visual tokens per layer on average\n  layers 0-3     576\n  layers 4-31    64\n" in out
    assert "KV bytes, visual tokens only          64.00 MiB   288.00 MiB   0.222\n" in out


def saved(folder, **changes):
    text = {"model_type": "llama", "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_size": 128,
            "intermediate_size": 384, "num_key_value_heads": 4}  # fmt: skip
    vision = {"image_size": 96, "patch_size": 8}
    config = {"model_type": "llava", "text_config": text, "vision_config": vision} | changes
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_plan_reads_the_shape_of_a_local_model(capsys, zebra, tmp_path):
    folder = saved(tmp_path / "tiny")
    for shape in (folder, folder / "config.json"):
        record = planned(capsys, "plan", "--shape", str(shape), "--strategy", "zebra_halve", "--keep", "16")
        assert (record["shape"], record["budget"]["visual"]) == ("tiny", 144)
        assert record["kv_bytes"]["visual"]["unpruned"] == 144 * 12 * 2 * 4 * 16 * 2


def test_what_a_saved_configuration_leaves_out_is_llamas(capsys, tmp_path):
    """llava-hf/llava-1.5-7b-hf saves of its language model hardly more than its type."""
    vision = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
    folder = saved(tmp_path / "seven", text_config={"model_type": "llama", "vocab_size": 32064}, vision_config=vision)
    record = planned(capsys, "plan", "--shape", str(folder))
    assert pytest.approx(record["flops"]["visual"]["unpruned"], rel=1e-4) == 3.817e12


def test_help_lists_commands_of_other_distributions_without_importing_them(capsys, zebra):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    listed = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    for command in (
        ["gallop", "Gallop away."],
        ["broken", "no summary: there is no source of zebra_lost"],
        ["plan", "Plan a budget without weights."],
    ):
        assert command in listed
    assert "zebra_mod" not in sys.modules


def test_no_words_print_the_help(capsys):
    assert run(capsys, "--help") == run(capsys)
    assert run(capsys, "-h") == run(capsys)
    assert run(capsys, "plan", "-h") == run(capsys, "plan", "--help")


def test_the_package_runs_as_the_command(capsys):
    done = subprocess.run([sys.executable, "-m", "headwise", "show"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "headwise: Missing argument 'NAME'; see headwise show --help\n"


def test_command_of_another_distribution_runs_with_its_options(capsys, zebra):
    assert run(capsys, "gallop", "--speed", "7") == (0, "galloping 7\n", "")


def test_help_of_a_command_of_another_distribution_lists_its_options(capsys, zebra):
    status, out, _ = run(capsys, "gallop", "--help")
    assert status == 0
    assert "  Gallop away.\n" in out
    assert "  --speed " in out


def test_version_is_the_distributions(capsys):
    assert (0, f"headwise {version('headwise')}\n", "") == run(capsys, "--version")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("stumble",), "a stone in the way; lift the hoof"),
        (("broken",), "'broken' from zebra 1.2 (zebra_lost:nothing) does not import: No module named 'zebra_lost'"),
        (("galop",), "No such command 'galop'. Did you mean 'gallop'?; see headwise --help"),
        (("gallop", "--speed", "x"), None),
        (("gallop", "--sped", "1"), None),
        (("show",), "Missing argument 'NAME'; see headwise show --help"),
        (("show", "zebra_strips"), "unknown strategy 'zebra_strips'; did you mean zebra_stripes or zebra_recipe?"),
        (("show", "recipe=zebra_recip"), "unknown recipe 'zebra_recip'; did you mean zebra_recipe?"),
        (("show", "hook=zebra_stripes"), None),
        (
            ("strategies", "--hook", "head_scorin"),
            "unknown hook 'head_scorin'; did you mean head_scoring or head_count?; hooks are query_selection,"
            " head_scoring, head_count, token_pruning, kv_eviction, head_classification; observers, recipe, adapter,"
            " benchmark can be listed too",
        ),
        (("plan",), "Missing option '--shape'; see headwise plan --help"),
        (
            ("plan", "--shape", "llava-1.5-8b"),
            "unknown shape 'llava-1.5-8b'; did you mean llava-1.5-7b or llava-1.5-13b or llama-3.1-8b?; known shapes:"
            " smollm2-135m, llama-3.1-8b, pythia-2.8b, pythia-70m, demo-pythia, llava-1.5-7b, llava-1.5-13b,"
            " demo-llava, llava-next-7b, llava-next-13b, llava-1.6-vicuna-7b, qwen2.5-vl-3b, qwen2.5-vl-7b",
        ),
        ((*PLAN, "--tokens", "64", "--keep", "16"), "both tokens=64 and keep=16 are given; a run has one budget"),
        (PLAN, "pruning needs a budget; give --tokens (average processed per layer) or --keep"),
        (
            (*PLAN, "--tokens", "60"),
            "tokens=60 cannot be met when pruning before layer 4 of 32: the layers in front of it process 576 tokens"
            " each; the smallest feasible budget is tokens=72.88",
        ),
        ((*PLAN, "--keep", "64", "--formula", "exact"), "unknown FLOP formula 'exact'; known formulas: gated, fastv"),
        (
            (*PLAN, "--strategy", "zebra_halve", "--keep", "64"),
            "'zebra_halve' and 'zebra_halve' are both token_pruning strategies; a run has one of each",
        ),
        ((*PLAN, "--keep", "64", "--text", "-1"), None),
    ],
)
def test_every_mistake_is_one_sentence_and_status_two(capsys, zebra, words, sentence):
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith("headwise: ")
    assert err.count("\n") == 1
    if sentence is not None:
        assert f"headwise: {sentence}\n" == err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            None,
            "config.json is missing; give a folder with a config.json or one of:",
        ),
        ("{", "config.json, line 1: not JSON, Expecting property name"),
        ("[]", "config.json holds no JSON object; wanted the configuration of a model"),
        ("{}", "config.json gives model_type=None; wanted that of a model family there is: apertus, arcee, "),
        (
            '{"model_type": "idefics", "text_config": {}, "vision_config": {"image_size": 96, "patch_size": 8}}',
            "config.json gives model_type='idefics'; wanted that of a model family there is: apertus, arcee, ",
        ),
        (
            '{"model_type": "llava"}',
            "config.json has no text_config; wanted the configuration of a llava model",
        ),
        (
            '{"model_type": "llava", "text_config": {}}',
            "config.json has no vision_config; wanted the configuration of a llava model",
        ),
        (
            '{"model_type": "llava", "text_config": {}, "vision_config": {"image_size": 96, "patch_size": 8}}',
            "config.json gives num_attention_heads=None; wanted a count of at least 1",
        ),
        (
            '{"model_type": "llama", "num_attention_heads": 16, "hidden_size": 8}',
            "config.json gives hidden_size=8 for 16 heads; wanted a multiple, or a head_dim",
        ),
        (
            '{"model_type": "llama", "num_attention_heads": 16, "hidden_size": 64, "num_key_value_heads": 3}',
            "config.json gives 16 heads and 3 KV heads; wanted as many heads for each KV head",
        ),
    ],
)
def test_model_folder_that_cannot_be_read_is_one_sentence(capsys, tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    status, out, err = run(capsys, "plan", "--shape", str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith(f"headwise: {tmp_path}/{sentence}")
    assert err.count("\n") == 1


def test_interruption_is_one_line_and_status_130(capsys, zebra):
    assert run(capsys, "interrupt") == (130, "", "headwise: interrupted\n")


def test_programming_errors_of_our_own_are_not_swallowed(monkeypatch):
    def crash() -> None:
        1 / 0  # noqa: B018

    monkeypatch.setattr("headwise.commands.show.show", crash)
    with pytest.raises(ZeroDivisionError):
        main(["show"])


@pytest.mark.parametrize("words", [["strategies"], ["--help"], ["--version"], ["show", "cdpruner"]])
def test_listing_imports_neither_torch_nor_numpy_nor_any_plugin(words):
    script = (
        "import sys; from headwise.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'transformers', 'scipy', 'matplotlib', 'rich', 'jinja2', 'PIL', 'pyarrow',"
        " 'headwise_plugins', 'headwise_adapters', 'headwise_lab'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else status)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_installed_command_passes_the_status_on():
    done = subprocess.run([sys.executable, "-m", "headwise.cli", "plan"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "headwise: Missing option '--shape'; see headwise plan --help\n")
