"""As `share`, but what it submits at a time takes a quarter of that."""

from __future__ import annotations

from functools import partial

from hesper.bench.client.share import JOB_NS
from hesper.bench.client.share import measure as measure_share

measure = partial(measure_share, job_ns=JOB_NS // 4)
