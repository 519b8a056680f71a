"""Work of Ray's actors in this process, and a cluster that lives in this process."""

import pickle
from types import ModuleType, SimpleNamespace

from model.errors import MicroStepError
from model.hub.loading import load


def shared_here(loaded, make, items, cluster, tell):
    """Stand in for `work_on_ray`: two actors of this process, which finish the items in the opposite order."""
    acts = [sent(make)(load(loaded.spec)) for _ in range(2)]
    for i, item in enumerate(reversed(list(items))):
        yield item, sent(acts[i % 2](sent(item.value)))


def sent(value):
    """What arrives in another process."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


class RayHere(ModuleType):
    """Stands in for the module `ray`: an actor's call runs when it is waited for, the latest first.

    Args:
        cpus: processors of each machine.
        deaths: called with the name of a method and its argument; True: the actor dies.
    """

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        def __init__(self, cause):
            self.cause = cause

    def __init__(self, cpus, deaths):
        super().__init__("ray")
        self.cpus, self.deaths = cpus, deaths
        self.exceptions = SimpleNamespace(RayError=self.RayError, RayTaskError=self.RayTaskError)
        self.alive, self.calls, self.started = [], {}, 0

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": bool(n), "Resources": {"CPU": float(n)}} for n in self.cpus]

    def put(self, value):
        return value

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: self._start(kind)))

    def _start(self, kind):
        self.started += 1
        actor = SimpleNamespace(held=kind(), number=self.started)
        self.alive.append(actor.number)
        for name in ("begin", "work"):
            setattr(actor, name, SimpleNamespace(remote=lambda value, name=name: self._call(actor, name, value)))
        return actor

    def _call(self, actor, name, value):
        reference = len(self.calls)
        self.calls[reference] = actor, name, value
        return reference

    def wait(self, references, timeout):
        return (references[-1:], references[:-1]) if timeout else ([], references)

    def get(self, reference):
        actor, name, value = self.calls[reference]
        if actor.number not in self.alive or self.deaths(name, value):
            raise self.RayError("The actor died.\n\tkilled by SIGKILL\n")
        try:
            return getattr(actor.held, name)(value)
        except (MicroStepError, self.RayError) as error:
            raise self.RayTaskError(error) from None

    def kill(self, actor):
        if actor.number in self.alive:
            self.alive.remove(actor.number)

    def kill_one(self):
        """Lose a machine with one actor."""
        self.alive.pop()
