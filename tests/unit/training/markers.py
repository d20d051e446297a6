"""Marks that tests of training share."""

import pytest

# Lightning's own: parts of torch that it still uses, and advice about workers and logging on data this small.
LIGHTNING = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
