"""Numbers as people write them."""

import pytest

from SEBrainSegLib.text import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (21.4, "21 s"),
        (99.4, "99 s"),
        (99.9, "2 min"),
        (130, "2 min"),
        (89 * 60, "89 min"),
        (5400, "1 h 30 min"),
        (7199, "2 h 0 min"),
        (86400, "24 h 0 min"),
    ],
)
def test_a_time_span_is_written_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text
