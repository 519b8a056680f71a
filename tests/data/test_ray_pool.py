"""Items go to the actors of a cluster and come back, whatever dies; the cluster is one of this process."""

import sys

import pytest
import torch

from data import ray_pool
from data.ray_pool import RayItem, RayOptions, work_on_ray
from model.errors import MicroStepError, ModelNotFound, TextError
from model.hub.loading import ModelSpec, load
from model.progress import silent
from tests.data.ray_work import RayHere


@pytest.fixture(scope="module")
def loaded(models):
    return load(ModelSpec(str(models["base"])))


@pytest.fixture
def started(monkeypatch):
    """Start a cluster; the packages' versions are those of here, also of one that is not installed."""
    versions = dict.fromkeys(ray_pool._PACKAGES, "1.0")
    monkeypatch.setattr(ray_pool, "version", versions.__getitem__)
    monkeypatch.setattr(ray_pool, "SECONDS_BETWEEN_LOOKS", 1e-9)

    def start(cpus=(1, 1), deaths=lambda name, value: False):
        ray = RayHere(list(cpus), deaths)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return start


def make(loaded):
    """Work that squares numbers and refuses 13."""

    def act(value):
        if value == 13:
            raise TextError("13 cannot be read")
        return value**2

    return act


def items(n):
    return (RayItem(f"item {i}", i) for i in range(n))


def results(loaded, n, most=None, tell=silent):
    return {item.value: result for item, result in work_on_ray(loaded, make, items(n), RayOptions(True, most), tell)}


SQUARES = {i: i**2 for i in range(12)}


@pytest.mark.parametrize(
    ("cpus", "most", "actors"), [((1, 1), None, 2), ((3, 2), None, 5), ((4,), 3, 3), ((), None, 1)]
)
def test_each_place_of_the_cluster_has_an_actor_and_each_item_one_result(started, loaded, cpus, most, actors):
    ray = started(cpus)
    assert results(loaded, 12, most) == SQUARES
    assert ray.started == actors and ray.alive == []


def test_no_more_actors_than_items_and_none_for_nothing(started, loaded):
    ray = started((8,))
    assert results(loaded, 3) == {0: 0, 1: 1, 2: 4} and ray.started == 3
    assert results(loaded, 0) == {} and ray.started == 3


def test_items_are_read_no_further_ahead_than_there_are_actors(started, loaded):
    read = []
    started((1, 1))
    given = (read.append(i) or RayItem(str(i), i) for i in range(20, 100))
    with_results = work_on_ray(loaded, make, given, RayOptions(True), silent)
    for done in range(1, 70):
        next(with_results)
        assert len(read) <= done + 4
    with_results.close()


def test_an_item_whose_actor_died_is_given_to_another(started, loaded):
    died = set()

    def deaths(name, value):
        if name == "begin" or value % 3 or value in died:
            return False
        died.add(value)
        return True

    ray = started((1, 1), deaths)
    assert results(loaded, 12) == SQUARES
    assert died == {0, 3, 6, 9} and ray.started == 6 and ray.alive == []


def test_a_machine_may_be_lost_and_another_join(started, loaded):
    done = {}
    ray = started((1, 1))
    for item, result in work_on_ray(loaded, make, items(12), RayOptions(True), silent):
        done[item.value] = result
        if len(done) == 4:
            ray.cpus[:] = [1, 0]  # it is gone with its actor
            ray.kill_one()
        if len(done) == 8:
            ray.cpus[:] = [1, 0, 3]
    assert done == SQUARES and ray.started == 2 + 3


def test_an_item_on_which_actors_die_again_and_again_is_named(started, loaded):
    ray = started((1, 1), lambda name, value: value == 7)
    with pytest.raises(MicroStepError, match=r"3 of Ray's actors died as they worked on item 7 \(killed by SIGKILL\)"):
        results(loaded, 12)
    assert ray.alive == []


def test_actors_that_never_start_are_one_clear_error(started, loaded):
    ray = started((1, 1), lambda name, value: name == "begin")
    with pytest.raises(MicroStepError, match="died as they started"):
        results(loaded, 12)
    assert ray.started <= 4 and ray.alive == []


def test_the_errors_of_the_work_are_those_of_one_process(started, loaded, monkeypatch):
    ray = started()
    with pytest.raises(TextError, match=r"^13 cannot be read$"):
        results(loaded, 20)
    assert ray.alive == []

    def nowhere(spec):
        raise ModelNotFound("there is no model here")

    monkeypatch.setattr("model.hub.loading.load", nowhere)
    with pytest.raises(ModelNotFound, match=r"^.+, a machine of the cluster: there is no model"):
        results(loaded, 20)
    assert ray.alive == []


def test_a_machine_without_the_code_is_told_in_one_line(started, loaded, monkeypatch):
    def unread(self, given):
        raise ray.RayError("System error: No module named 'data'\ntraceback: ...")

    ray = started()
    monkeypatch.setattr(ray_pool._Actor, "begin", unread)
    with pytest.raises(MicroStepError, match=r"\(System error: No module named 'data'\); install the same"):
        results(loaded, 12)


def test_a_machine_with_another_version_or_model_is_refused(started, loaded, monkeypatch):
    started()
    here = ray_pool._facts(loaded)
    monkeypatch.setattr(ray_pool._Actor, "begin", lambda self, given: {**here, "torch": "0.9"})
    with pytest.raises(MicroStepError, match=r"torch \(1.0 here, 0.9 there\)"):
        results(loaded, 12)
    monkeypatch.setattr(ray_pool._Actor, "begin", lambda self, given: {**here, "files of the model": "abc"})
    with pytest.raises(MicroStepError, match="files of the model"):
        results(loaded, 12)


def test_whoever_listens_may_stop_the_run(started, loaded):
    ray = started()

    def stop(message, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results(loaded, 12, tell=stop)
    running = work_on_ray(loaded, make, items(12), RayOptions(True), silent)
    next(running)
    running.close()
    assert ray.alive == []


def test_an_actor_has_the_threads_of_this_process(started, loaded):
    threads = torch.get_num_threads()
    ray = started((4 * threads, threads))
    assert results(loaded, 12) == SQUARES and ray.started == 5
