"""Every law of head scoring and of benchmarks, for both as users find them: by name; and the recipe likewise."""

import headwise
import headwise.testing


@headwise.testing.parametrize("head_scoring", ["top_mass", "top_mass:share=0.5", "top_mass:share=1"])
def test_conformance(check):
    """One strategy text, one law."""
    check()


@headwise.testing.parametrize("benchmark", ["counting"])
def test_benchmark(check):
    """One law."""
    check()


def test_recipe_names_the_strategy():
    """What `--recipe top-mass` is made of."""
    recipe = headwise.Recipe.of(name="top-mass", tokens=192)
    assert recipe.strategies["head_scoring"].text == "top_mass:share=0.05"
    assert headwise.Pipeline(recipe).plan(headwise.shape("llava-1.5-7b")).kept == 166
