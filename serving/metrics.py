"""Counts of a server in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from serving.job import Job
from serving.model_service import ModelService

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # upper ends of the buckets


class Histogram:
    """How many requests took how long."""

    def __init__(self) -> None:
        self.counts, self.total, self.sum = [0] * len(SECONDS), 0, 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        self.total, self.sum = self.total + 1, self.sum + seconds
        for at, end in enumerate(SECONDS):
            self.counts[at] += seconds <= end

    def lines(self, name: str) -> Iterator[str]:
        """The lines of the histogram."""
        for end, count in zip(SECONDS, self.counts, strict=True):
            yield f'{name}_bucket{{le="{end:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.total}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {self.total}"


class Metrics:
    """What a server has done since it started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.tokens: Counter[str] = Counter()
        self.first_token, self.whole = Histogram(), Histogram()

    def done(self, job: Job, seconds: float) -> None:
        """Count an answered request, or the part of it that was written before its client left."""
        self.whole.add(seconds)
        if job.first_token is not None:
            self.first_token.add(job.first_token)
        self.tokens["prompt_tokens"] += job.prepared.prompt_tokens
        for row in job.rows:
            self.tokens["generated_tokens"] += len(row.out.ids)
            self.tokens["macro_steps"] += row.out.macro_steps
            self.tokens["drafted_tokens"] += row.out.drafted
            self.tokens["accepted_tokens"] += row.out.accepted

    def text(self, service: ModelService) -> str:
        """All of it."""
        lines = []
        for name, value in (("running", service.engine.running), ("waiting", service.engine.waiting)):
            lines += [f"# TYPE micro_step_rows_{name} gauge", f"micro_step_rows_{name} {value}"]
        for name in ("prompt_tokens", "generated_tokens", "macro_steps", "drafted_tokens", "accepted_tokens"):
            lines += [f"# TYPE micro_step_{name}_total counter", f"micro_step_{name}_total {self.tokens[name]}"]
        lines.append("# TYPE micro_step_requests_total counter")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'micro_step_requests_total{{path="{path}",status="{status}"}} {count}')
        for name, histogram in (("time_to_first_token", self.first_token), ("request", self.whole)):
            lines += [f"# TYPE micro_step_{name}_seconds histogram", *histogram.lines(f"micro_step_{name}_seconds")]
        return "\n".join(lines) + "\n"
