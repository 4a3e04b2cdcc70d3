"""A made-up run for every test of the report."""

import pytest

from tests.report.made_up_run import make_choices, make_example, make_summaries


@pytest.fixture
def summaries():
    return make_summaries()


@pytest.fixture
def choices():
    return make_choices()


@pytest.fixture
def example():
    return make_example()
