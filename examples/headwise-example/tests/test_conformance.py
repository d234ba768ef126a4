"""Every law of head scoring, for the strategy as users find it: by name."""

import headwise.testing


@headwise.testing.parametrize("head_scoring", ["top_mass", "top_mass:share=0.5", "top_mass:share=1"])
def test_conformance(check):
    """One strategy text, one law."""
    check()
