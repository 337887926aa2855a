"""How numbers stand in tables."""

from __future__ import annotations

import pytest

from sparseflow.report.formats import error_text


@pytest.mark.parametrize(
    ("error", "text"), [(23.4, "20"), (9.6, "10"), (1.0, "1"), (0.31, "0.3"), (2.2e-11, "2e-11"), (0.0, "0")]
)
def test_errors_have_one_digit(error, text):
    assert error_text(error) == text
