"""A stand-in for vLLM's model runner and scheduler, for merged decoding: slots, rows and tokens are those of vLLM."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import torch
from transformers import DynamicCache

from serving.vllm_plugin.merged import MergedWriter
from tests.serving.fake_vllm import FakeLLM, Target, vllm_config

BLOCK = 4  # slots of a block


class Logprobs(NamedTuple):
    ids: torch.Tensor
    logprobs: torch.Tensor
    ranks: torch.Tensor


@dataclass
class Metadata:
    """What vLLM's sampler reads."""

    generators: dict
    output_token_ids: list


def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None, **model_kwargs):
    """The base over all rows, each request with a cache of its own, whose length vLLM's metadata must say."""
    embeds = self.target.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
    states = []
    for request, a, b, seen in zip(self.live, self.starts[:-1], self.starts[1:], self.seen, strict=True):
        read = self.target.base.model(
            inputs_embeds=embeds[None, a:b], position_ids=positions[None, a:b], past_key_values=request.cache,
            output_hidden_states=True,
        )  # fmt: skip
        assert request.cache.get_seq_length() == seen
        states.append(read.hidden_states)
    layers = [*self.drafter.aux_layers, -1]
    *aux, last = (torch.cat([each[layer][0] for each in states]) for layer in layers)
    return last, aux


def attention(self, num_tokens, num_reqs, *args, **options):
    self.seen = self.seq_lens[:num_reqs].tolist()
    assert self.seen == self.optimistic_seq_lens_cpu[:num_reqs].tolist()
    return options["slot_mappings"]


def update(self, request, new_token_ids, is_stale=False):
    request.output_token_ids.extend(new_token_ids)
    return new_token_ids, False


def allocate(self, request, num_new_tokens, *args, **options):
    need = -(-(request.num_computed_tokens + num_new_tokens) // BLOCK)
    request.blocks += range(100 * request.number + len(request.blocks), 100 * request.number + need)


def install_loop(modules):
    """Put vLLM's functions in the place of those that do nothing, before the plugin replaces them."""
    runner = modules["vllm.v1.worker.gpu_model_runner"].GPUModelRunner
    scheduler = modules["vllm.v1.core.sched.scheduler"].Scheduler
    manager = modules["vllm.v1.core.kv_cache_manager"].KVCacheManager
    for place, name, function in (
        (runner, "_model_forward", forward),
        (runner, "_build_attention_metadata", attention),
        (scheduler, "_update_request_with_output", update),
        (manager, "allocate_slots", allocate),
    ):
        function.__signature__ = inspect.signature(getattr(place, name))
        setattr(place, name, function)
    return runner, scheduler, manager


class FakeMergedLLM(FakeLLM):
    """Requests written by the plugin's hooks, as vLLM calls them."""

    def __init__(self, folder, additional, parts, **config):
        super().__init__(folder, None, 0)
        runner, scheduler, manager = parts
        config = vllm_config(additional, 3, **config)
        self.runner, self.scheduler, self.manager = runner(), scheduler(), manager()
        self.scheduler.vllm_config, self.number = config, 0
        self.runner.drafter, self.runner.target = MergedWriter(config), Target(self.base)
        self.runner.drafter.load_model(self.runner.target)
        self.runner.requests, self.runner.max_model_len = {}, 1024
        self.runner.sampler = self._sampler

    def add_request(self, name, prompt, params):
        super().add_request(name, prompt, params)
        request = self.requests[name]
        self.number += 1
        request.number, request.blocks, request.cache = self.number, [], DynamicCache(config=self.base.config)
        request.num_computed_tokens, request.num_prompt_tokens = 0, len(request.prompt)

    def _sampler(self, logits, sampling_metadata):
        found = logits.log_softmax(-1)
        best, top = found.argmax(-1), found.topk(5)
        told = Logprobs(
            torch.cat([best[:, None], top.indices], 1),
            torch.cat([found.gather(1, best[:, None]), top.values], 1),
            torch.ones(len(best)),
        )
        return SimpleNamespace(sampled_token_ids=best[:, None].int(), logprobs_tensors=told)

    @torch.inference_mode()
    def step(self):
        live, runner = list(self.requests.items()), self.runner
        runner.live = requests = [request for _, request in live]
        runner.requests = {request.req_id: request for request in requests}
        ids, positions, lengths, mapping = [], [], [], []
        for request in requests:
            known = request.prompt + request.output_token_ids
            new = len(known) - request.num_computed_tokens
            self.manager.allocate_slots(request, new)
            place = range(request.num_computed_tokens, len(known))
            ids += known[request.num_computed_tokens :]
            positions += place
            mapping += [request.blocks[at // BLOCK] * BLOCK + at % BLOCK if at // BLOCK < len(request.blocks) else -1
                        for at in place]  # fmt: skip
            lengths.append(new)
        runner.starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
        table = torch.zeros(len(requests), 100, dtype=torch.int32)
        for row, request in zip(table, requests, strict=True):
            row[: len(request.blocks)] = torch.tensor(request.blocks)
        runner.input_batch = SimpleNamespace(
            num_reqs=len(requests),
            req_ids=[request.req_id for request in requests],
            num_prompt_tokens=[request.num_prompt_tokens for request in requests],
            block_table=[SimpleNamespace(block_size=BLOCK, get_cpu_tensor=lambda: table)],
            sampling_metadata=Metadata({}, []),
        )
        runner.query_start_loc = SimpleNamespace(cpu=torch.tensor(runner.starts))
        runner.seq_lens = torch.tensor([request.num_computed_tokens for request in requests]) + torch.tensor(lengths)
        runner.optimistic_seq_lens_cpu = runner.seq_lens.clone()
        runner.discard_request_mask = SimpleNamespace(np=[False] * len(requests))
        mapping = torch.tensor(mapping)
        runner._build_attention_metadata(len(ids), len(requests), slot_mappings={0: mapping})
        for request, end, seen in zip(requests, runner.starts[1:], runner.seen, strict=True):
            block, rest = divmod(seen - 1, BLOCK)
            assert mapping[end - 1] == request.blocks[block] * BLOCK + rest and len(request.blocks) == block + 1
        last, _ = runner._model_forward(torch.tensor(ids), torch.tensor(positions))
        ends = torch.tensor(runner.starts[1:]) - 1
        out = runner._sample(self.base.lm_head(last[ends]), None)
        return [self._output(name, *each) for (name, _), *each in zip(live, lengths, *_by_request(out), strict=True)]

    def _output(self, name, length, ids, told):
        request = self.requests[name]
        params, finished = request.sampling_params, None
        request.num_computed_tokens += length
        for count, id_ in enumerate(ids, 1):
            full = len(request.output_token_ids) + count >= params.max_tokens
            if id_ in params.stop_token_ids or full:
                ids, finished = ids[:count], "stop" if id_ in params.stop_token_ids else "length"
                break
        self.scheduler._update_request_with_output(request, ids)
        if finished is not None:
            del self.requests[name]
        written = SimpleNamespace(token_ids=ids, logprobs=told[: len(ids)], finish_reason=finished)
        return SimpleNamespace(request_id=name, outputs=[written])


def _by_request(out):
    """Each request's tokens, and what vLLM tells of them: {id: Logprob}."""
    tokens, told, at = [], [], 0
    for row in out.sampled_token_ids.tolist():
        tokens.append([id_ for id_ in row if id_ >= 0])
        lines = range(at, at + len(tokens[-1]))
        told.append(
            [
                {
                    id_: SimpleNamespace(logprob=logprob, rank=max(1, place))
                    for place, (id_, logprob) in enumerate(
                        zip(
                            out.logprobs_tensors.ids[line].tolist(),
                            out.logprobs_tensors.logprobs[line].tolist(),
                            strict=True,
                        )
                    )
                }
                for line in lines
            ]
        )
        at += len(row)
    return tokens, told
