"""What tests of evaluation share: small data sets on disk, a plain model, and a micro_step model around it."""

import pytest

from tests.support.evaluations import micro_model, plain_model, write_local


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_local(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def micro(plain, tmp_path_factory):
    return micro_model(tmp_path_factory.mktemp("models") / "micro", plain)
