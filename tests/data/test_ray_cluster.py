"""A real cluster of Ray, of two machines (raylets) here: one is killed while it works, and the results are the same.

Needs Ray, s3fs (requirements-ray.txt) and moto. What a death does otherwise is tested in test_ray_pool.py.
"""

import json
import sys
from importlib.util import find_spec

import psutil
import pytest

from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.ray_scoring import score_corpus_with_ray
from data.corpus.scoring import score_corpus
from data.distill.run import DistillOptions, Prompt, distill
from data.ray_pool import RayOptions, quiet_ray
from model.hub.loading import ModelSpec, load
from model.one_writer import LOCK
from model.progress import INTERVAL
from model.storage.places import Address, read, sizes_in, write
from model.text.document import Message
from tests.support.tiny import CORPUS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray is not tested there"),
    pytest.mark.skipif(
        not all(map(find_spec, ("ray", "s3fs", "moto"))),
        reason="needs Ray, s3fs and moto: requirements-ray.txt and -dev.txt",
    ),
]

QUICK = {  # so that the death of a machine is noticed within a second
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
OPTIONS = CorpusOptions(windows=True, max_tokens=32, shard_tokens=300)


@pytest.fixture(scope="module")
def machines(server):
    """Two machines of one processor each, which know the S3 server."""
    quiet_ray()
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False, "_system_config": QUICK}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster, cluster.add_node(**small)
    cluster.shutdown()


class Lost:
    """Kills a machine with all its processes, once its actor works."""

    def __init__(self, machine):
        self._raylet = psutil.Process(machine.all_processes["raylet"][0].process.pid)
        self.killed = False

    def __call__(self, message, share):
        if self.killed or share is None:
            return
        processes = [self._raylet, *self._raylet.children(recursive=True)]
        if any("_Actor.work" in " ".join(process.cmdline()) for process in processes):
            self.killed = True
            for process in processes:
                process.kill()


def files(place):
    return {name: read(place / name) for name in sizes_in(place) if name != LOCK}


def test_a_machine_that_is_killed_changes_no_byte(machines, models, tmp_path, capfd):
    """Actors read the corpus in object storage, and write the store there; there is no shared disk."""
    loaded = load(ModelSpec(str(models["base"])))
    data = tmp_path / "corpus.jsonl"
    texts = [text[: 20 + 13 * i] for i in range(30) for text in CORPUS]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    one, many = tmp_path / "one", Address("s3://bucket/many")
    score_corpus(lambda: loaded, open_corpus(CorpusSpec(str(data))), one, OPTIONS)
    write(Address("s3://bucket/corpus.jsonl"), data.read_bytes())
    corpus = open_corpus(CorpusSpec("s3://bucket/corpus.jsonl"))
    capfd.readouterr()
    kill, interval = Lost(machines[1]), INTERVAL.set(0.0)
    score_corpus_with_ray(lambda: loaded, corpus, many, OPTIONS, kill, RayOptions(True))
    INTERVAL.reset(interval)
    assert kill.killed and files(many) == files(one)
    assert capfd.readouterr().out == "", "Ray speaks to users"


def test_answers_are_those_of_one_process(machines, models, tmp_path):
    loaded = load(ModelSpec(str(models["sft"])))
    prompts = [Prompt("here", i, (Message("user", text[: 5 + i]),)) for i, text in enumerate(CORPUS)]
    options = DistillOptions(max_new_tokens=6, batch_rows=2, shard_prompts=3)
    distill(lambda: loaded, prompts, tmp_path / "one", options)
    distill(lambda: loaded, prompts, tmp_path / "many", options, cluster=RayOptions(True))
    assert files(tmp_path / "one") == files(tmp_path / "many")
