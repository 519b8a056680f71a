"""A stand-in for vLLM: its loop of passes over a transformers model, without a cache, and the names that we import."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

from serving.vllm_plugin import guard
from serving.vllm_plugin.drafter import MicroStepDrafter

ARGUMENTS = {each.name: each.arguments for each in guard.RELIED}


def function_of(arguments):
    """A function that takes these arguments."""
    place = {}
    exec(f"def call({', '.join(arguments)}): return 'vllm'", place)  # noqa: S102
    return place["call"]


def install(monkeypatch, **other):
    """Put modules named vllm... in place; `other` replaces the arguments of some functions."""
    modules = {}

    def module(name):
        for end in [i for i, c in enumerate(name + ".") if c == "."]:
            modules.setdefault(name[:end], ModuleType(name[:end]))
        return modules[name]

    for each in guard.RELIED:
        *owners, name = each.name.split(".")
        place = module(each.module)
        for owner in owners:
            place.__dict__.setdefault(owner, type(owner, (), {}))
            place = getattr(place, owner)
        setattr(place, name, function_of(other.get(name, each.arguments)))
    module("vllm.v1.outputs").SamplerOutput = SamplerOutput
    module("vllm.exceptions").VLLMValidationError = VLLMValidationError
    module("vllm").SamplingParams = lambda **options: SimpleNamespace(**options)
    module("vllm").PoolingParams = lambda **options: SimpleNamespace(**options)
    module("vllm").ModelRegistry = FakeRegistry()
    module("vllm.model_executor.models.config").MODELS_CONFIG_MAP = {}
    module("vllm.sampling_params").RequestOutputKind = SimpleNamespace(DELTA="delta")
    module("vllm.platforms").current_platform = SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
    module("vllm.model_executor.models.interfaces").supports_eagle3 = lambda model: model.eagle3
    for name, each in modules.items():
        monkeypatch.setitem(sys.modules, name, each)
    monkeypatch.setattr(guard, "_state", {})
    return modules


class FakeRegistry:
    """The models that vLLM knows by name."""

    def __init__(self):
        self.models = {"LlamaForCausalLM": "llama", "BertModel": "bert"}

    def get_supported_archs(self):
        return self.models.keys()

    def register_model(self, architecture, place):
        self.models[architecture] = place


class VLLMValidationError(Exception):
    """Of a request."""

    def __init__(self, message, *, parameter=None, value=None):
        super().__init__(message)


class SamplerOutput:
    """Tokens [R, W] and their logprobs."""

    def __init__(self, sampled_token_ids, logprobs_tensors):
        self.sampled_token_ids, self.logprobs_tensors = sampled_token_ids, logprobs_tensors


def vllm_config(additional, drafts, proposer="MicroStepDrafter", refused=(), **parallel):
    """A configuration of vLLM; `refused` names settings that merged decoding cannot work with."""
    return SimpleNamespace(
        additional_config=additional,
        speculative_config=SimpleNamespace(num_speculative_tokens=drafts, model=f"micro_step.vllm_plugin.{proposer}"),
        cache_config=SimpleNamespace(enable_prefix_caching="prefix caching" in refused),
        scheduler_config=SimpleNamespace(
            async_scheduling="asynchronous" in refused, enable_chunked_prefill="chunked" in refused, max_num_seqs=8
        ),
        kv_transfer_config=None,
        parallel_config=SimpleNamespace(**{"tensor_parallel_size": 1, "pipeline_parallel_size": 1, **parallel}),
        lora_config=None,
        model_config=SimpleNamespace(dtype=torch.float32, enforce_eager="compiled" not in refused, max_model_len=100),
    )


class Target:
    """A base as vLLM offers it."""

    eagle3 = True

    def __init__(self, base):
        self.base, self.lm_head = base, base.get_output_embeddings()

    def parameters(self):
        return self.base.parameters()

    def embed_input_ids(self, ids):
        return self.base.get_input_embeddings()(ids)

    def compute_logits(self, states):
        return self.lm_head(states)


class FakeScoringLLM:
    """Texts read by a transformers model, so many tokens a pass that their ends lie in several passes."""

    def __init__(self, model, score, at_once):
        self.model, self.score, self.at_once = model, score, at_once
        self.requests, self.put_off = {}, 0

    def add_request(self, name, prompt, params):
        ids = torch.tensor(prompt["prompt_token_ids"])
        self.requests[name] = SimpleNamespace(ids=ids, params=params, state=FakePoolingState(), read=0)

    def has_unfinished_requests(self):
        return bool(self.requests)

    def abort_request(self, names):
        for name in names:
            del self.requests[name]

    @torch.inference_mode()
    def step(self):
        passed, counts, states, room = [], [], [], self.at_once
        for name, each in self.requests.items():
            if room and (count := min(room, len(each.ids) - each.read)):
                if self.put_off and each.read:  # vLLM drops what it holds of a text, and later begins anew
                    self.put_off, each.read = self.put_off - 1, 0
                    count = min(room, len(each.ids))
                each.read, room = each.read + count, room - count
                body = self.model.model(each.ids[None, : each.read]).last_hidden_state[0]
                states.append(body[each.read - count :])
                passed.append(name)
                counts.append(count)
        live = [self.requests[name] for name in passed]
        lengths = [len(each.ids) for each in live]
        metadata = SimpleNamespace(
            prompt_lens=torch.tensor(lengths),
            prompt_token_ids_cpu=torch.nn.utils.rnn.pad_sequence([each.ids for each in live], batch_first=True).int(),
            pooling_params=[each.params for each in live],
            pooling_states=[each.state for each in live],
            pooling_cursor=SimpleNamespace(
                num_scheduled_tokens_cpu=torch.tensor(counts), seq_lens_cpu=torch.tensor([each.read for each in live])
            ),
        )
        answers = dict(zip(passed, self.score(torch.cat(states), metadata), strict=True))
        over = {name: answer for name, answer in answers.items() if answer is not None}
        self.abort_request(over)
        return [SimpleNamespace(request_id=name, outputs=SimpleNamespace(data=answer)) for name, answer in over.items()]


class FakePoolingState:
    """What vLLM keeps for a pooler between the passes of a text."""

    def __init__(self):
        self.hidden_states_cache = []

    def clean(self):
        self.hidden_states_cache.clear()


class FakeLLM:
    """Requests written greedily, checked drafts and all; each pass reads the whole text."""

    def __init__(self, folder, additional, drafts):
        self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.drafter, self.requests, self.aborted = None, {}, []
        if additional is not None:
            self.drafter = MicroStepDrafter(vllm_config(additional, drafts))
            self.drafter.load_model(Target(self.base))

    def add_request(self, name, prompt, params):
        if params.max_tokens < 1:
            raise VLLMValidationError("max_tokens must be at least 1")
        self.requests[name] = SimpleNamespace(
            req_id=f"{name}-of-vllm", sampling_params=params, output_token_ids=[],
            prompt=prompt["prompt_token_ids"], drafted=[],
        )  # fmt: skip

    def abort_request(self, names):
        for name in names:
            self.aborted.append(name)
            self.requests.pop(name, None)

    @torch.inference_mode()
    def step(self):
        live = list(self.requests.items())
        outputs, states, starts, counts, sampled, aux = [], [], [0], [], [], []
        for name, request in live:
            known = request.prompt + request.output_token_ids
            first = 0 if not request.output_token_ids else len(known) - 1  # what the cache does not hold
            read = self.base(torch.tensor([known + request.drafted]), output_hidden_states=True)
            logits = read.logits[0, len(known) - 1 :].log_softmax(-1)
            ids = []
            for place, best in enumerate(logits.argmax(-1).tolist()):
                ids.append(best)
                if request.drafted[place : place + 1] != [best]:
                    break
            finished, params = None, request.sampling_params
            for count, id_ in enumerate(ids, 1):
                full = len(request.output_token_ids) + count >= params.max_tokens
                if id_ in params.stop_token_ids or full:
                    ids, finished = ids[:count], "stop" if id_ in params.stop_token_ids else "length"
                    break
            told = [self._told(logits[place], id_, params.logprobs) for place, id_ in enumerate(ids)]
            outputs.append(
                SimpleNamespace(
                    request_id=name,
                    outputs=[SimpleNamespace(token_ids=ids, logprobs=told, finish_reason=finished)],
                )
            )
            states.append(read.hidden_states[-1][0, first:])
            layers = [] if self.drafter is None else self.drafter.aux_layers
            aux.append([read.hidden_states[layer][0, first:] for layer in layers])
            starts.append(starts[-1] + len(states[-1]))
            counts.append(len(request.drafted))
            sampled.append(ids)
            request.output_token_ids.extend(ids)
        if self.drafter is not None and live:
            inner = [torch.cat(each) for each in zip(*aux, strict=True)]
            drafts = self.drafter.propose_after(
                [request for _, request in live], sampled, starts, counts, torch.cat(states), inner
            )
            for (_, request), draft in zip(live, drafts, strict=True):
                request.drafted = draft
        for output in outputs:
            if output.outputs[0].finish_reason is not None:
                del self.requests[output.request_id]
        return outputs

    @staticmethod
    def _told(logprobs, id_, k):
        ranks = logprobs.argsort(descending=True).tolist()
        wanted = {*ranks[:k], id_}
        return {i: SimpleNamespace(logprob=float(logprobs[i]), rank=ranks.index(i) + 1) for i in wanted}
