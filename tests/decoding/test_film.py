"""The film of a generation: at every tau it is what a run at that tau does, as far as it says that it knows."""

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.generation.film import Film
from analysis.generation.film_page import page
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding
from analysis.generation.view import GenerationView
from analysis.stored_results.codec import StoredFile, write_npz
from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import wrap
from model.scoring.continuation import Sampling
from model.text.document import TextInput

TEXT = "Once upon a time there was a </script><b>girl</b> named Lily."


@pytest.fixture(scope="module")
def ready():
    """A trained model, whose drafts are partly kept."""
    return wrap(load(ModelSpec("micro-step-tiny")))


@pytest.fixture(scope="module")
def write(ready):
    def written(**how):
        decoding = Decoding(**{"max_new_tokens": 24, "repetition_penalty": 1.3, **how})
        request = GenerationRequest(ModelSpec("x"), TextInput.plain(TEXT), decoding)
        run = request.begin(ready, decoding)
        run.write()
        return run

    return written


def between(values):
    """Values of tau that no stored value is near, so that rounding decides nothing."""
    known = np.unique(values[np.isfinite(values)])
    gaps = np.argsort(-np.diff(known))[:6]
    return [0.0, *((known[gaps] + known[gaps + 1]) / 2).tolist(), 1.05]


@pytest.mark.parametrize("how", [{}, {"rule": "product", "max_segment_length": 3}, {"rule": "stop_head"}])
def test_a_lossless_run_is_replayed_at_every_tau(write, how):
    run = write(tau=0.2, lossless=True, **how)
    found = replace(run.so_far(), drafts=run._drafts())
    film, lengths = Film(found), set()
    for tau in between(found.drafts.value):
        real, play = write(tau=tau, lossless=True, **how).so_far(), film.at(tau)
        assert play.whole and real.micro.text == found.micro.text
        assert real.segments.starts.tolist() == play.starts.tolist()
        assert (real.drafted, real.accepted) == (play.drafted.sum(), play.kept.sum())
        lengths.add(real.drafted)
    own = film.at(0.2)
    assert own.starts.tolist() == found.segments.starts.tolist()
    assert (own.drafted.sum(), own.kept.sum()) == (found.drafted, found.accepted)
    assert len(lengths) > 3 and found.drafted > found.accepted > 0


@pytest.mark.parametrize("rule", ["confidence", "product"])
def test_a_merged_run_is_replayed_up_to_the_first_token_that_changes(write, rule):
    found = write(tau=0.2, lossless=False, rule=rule).so_far()
    film, known = Film(found), set()
    for tau in between(np.append(found.micro.probability, found.segments.refused_probability)):
        real, play = write(tau=tau, lossless=False, rule=rule).so_far(), film.at(tau)
        before = len(play.starts) - (not play.whole)
        assert real.micro.ids[: play.known].tolist() == found.micro.ids[: play.known].tolist()
        assert real.segments.starts[: len(play.starts)].tolist() == play.starts.tolist()
        assert (real.segments.lengths - 1)[:before].tolist() == play.kept[:before].tolist()
        if not play.whole:
            assert play.kept[-1] != found.segments.lengths[before] - 1
            assert real.segments.lengths[before] != found.segments.lengths[before]
        known.add(play.known)
    assert len(known) > 1


def test_what_is_not_known_is_not_replayed(write):
    sampled = write(tau=0.2, lossless=True, sampling=Sampling(1.0, 1.0, 3))
    relaxed = write(tau=0.0, lossless=True, eps=0.01)
    assert relaxed._drafts() is None and relaxed.so_far().relaxed > 0 and "relaxed" in Film(relaxed.so_far()).movable
    unknown = (sampled, relaxed, write(tau=0.2, lossless=True), write(tau=1.05, lossless=False))
    for found in [run.so_far() for run in unknown]:
        film = Film(found)
        assert sampled._drafts() is None and not film.replayable and film.taus == (found.how.tau,)
        assert sum(play["kept"][0] + 1 for play in film.reel()["plays"]) == found.segments.lengths[0]


def test_the_table_and_the_page_hold_every_token_and_no_markup(write):
    run = write(tau=0.2, lossless=True)
    found = replace(run.so_far(), drafts=run._drafts())
    found = run._told(found)
    table = Film(found).table()
    assert (table["fate"].isin(["base", "kept"])).sum() == len(found.micro)
    assert (table["fate"] == "refused by the base").sum() == found.drafted - found.accepted
    assert "".join(Film(found).reel()["tokens"]) == found.micro.text
    text = page(found, GenerationView())
    head, data = text.split('id="data">')
    assert "<b>" not in text and json.loads(data.split("</script>")[0])["reel"]["prompt"] == [["text", TEXT]]
    assert "default-src 'none'" in head and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    (again,) = [StoredFile(write_npz({"it": (type(found), found)})).read("it", type(found))]
    assert Film(again).reel() == Film(found).reel()
