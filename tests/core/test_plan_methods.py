"""``headwise plan`` gives the published figures of methods that prune in stages, from their names alone."""

from __future__ import annotations

import json

import pytest

from headwise.cli import main

LLAVA = ("plan", "--shape", "llava-1.5-7b")


def said(capsys, *words):
    assert main([*LLAVA, *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def planned(capsys, *words):
    return json.loads(said(capsys, *words, "--json"))


@pytest.mark.parametrize(
    ("words", "flops"),
    [
        ((), 3.817e12),
        (("--formula", "fastv"), 2.986e12),
        (("--strategy", "pdrop"), 1.777e12),
    ],
    ids=["all tokens, gated", "all tokens, FastV's formula", "PDrop"],
)
def test_prefill_flops_are_the_published_ones_to_three_digits(capsys, words, flops):
    assert flops == pytest.approx(planned(capsys, *words)["flops"]["visual"]["plan"], abs=0.0005e12)


def test_pdrop_computes_as_much_as_its_paper_says(capsys):
    record = planned(capsys, "--strategy", "pdrop")
    assert tuple(record["processed_per_layer"]) == (576,) * 8 + (288,) * 8 + (144,) * 8 + (72,) * 8
    assert record["flops"]["visual"]["ratio"] == pytest.approx(0.466, abs=0.0005)
    assert record["budget"] == {"given": "everything", "processed": 270.0, "kept": 72, "visual": 576}


@pytest.mark.parametrize(
    ("variant", "setting", "reported", "processed", "stages"),
    [
        ("v1", 192, 192.0, 206.5, [(309, 9), (204, 4), (113, 3)]),
        ("v1", 128, 128.6, 145.4, [(312, 9), (117, 7), (39, 3)]),
        ("v1", 96, 96.9, 114.1, [(249, 11), (55, 7), (27, 1)]),
        ("v1", 64, 64.8, 82.25, [(82, 16), (32, 2), (18, 1)]),
        ("plus", 192, 192.4, 206.8, [(300, 0), (200, 0), (118, 0)]),
        ("plus", 128, 128.0, 144.1, [(238, 0), (108, 0), (60, 0)]),
        ("plus", 96, 96.8, 113.9, [(246, 0), (54, 0), (28, 0)]),
        ("plus", 64, 64.4, 81.8, [(66, 0), (34, 0), (20, 0)]),
    ],
)
def test_sparsevlm_shows_what_it_reports_and_what_it_processes(capsys, variant, setting, reported, processed, stages):
    record = planned(capsys, "--strategy", f"sparsevlm:variant={variant},published={setting}")
    found = (record["budget"]["reported"], record["budget"]["processed"])
    assert (reported, processed) == pytest.approx(found, abs=0.0501)
    wanted = [
        {"layer": layer, "keep": keep, **({"merged": merged} if merged else {})}
        for layer, (keep, merged) in zip((3, 7, 16), stages, strict=True)
    ]
    assert wanted == record["stages"]


def test_both_averages_and_merged_tokens_are_said_in_words(capsys):
    out = said(capsys, "--strategy", "sparsevlm:published=192")
    assert (
        "  budget of the method itself\n"
        "\n"
        "kept        113 of 576 visual tokens after the last stage\n"
        "reported    192.03 by the method's own way of counting\n"
        "processed   206.50 visual tokens per layer on average\n"
        "  layers 0-2     576\n"
        "  layers 3-6     309, 9 of them merged\n"
        "  layers 7-15    204, 4 of them merged\n"
        "  layers 16-31   113, 3 of them merged\n"
        "\n"
    ) in out


@pytest.mark.parametrize("words", [("--strategy", "pdrop"), ("--strategy", "fastv", "--tokens", "192")])
def test_where_only_one_average_is_known_there_is_one(capsys, words):
    out = said(capsys, *words)
    assert "processed" in out
    assert "reported" not in out
    assert "merged" not in out


def test_a_budget_is_the_processed_average_whatever_the_method_reports(capsys):
    record = planned(capsys, "--strategy", "sparsevlm", "--tokens", "192")
    assert record["budget"]["processed"] == pytest.approx(192, abs=0.5)
    assert record["budget"]["reported"] < record["budget"]["processed"]
    assert "  budget tokens=192\n" in said(capsys, "--strategy", "sparsevlm", "--tokens", "192")


def test_a_plan_that_keeps_everything_says_so(capsys):
    assert "  budget everything\n" in said(capsys)
