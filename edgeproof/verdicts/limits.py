"""What a plan may set limits on, by name: plans are checked before anything is exported.

The metrics are `runtimes.parity.metrics`', the classes `runtimes.parity.gates`', which export
cannot import; a test holds these names against them.
"""

from __future__ import annotations

METRICS = (
    "mean_kl",
    "median_kl",
    "p90_kl",
    "p99_kl",
    "top1",
    "clear_top1",
    "acceptance",
    "perplexity_ratio",
    "rms_logit_difference",
    "nmse",
    "fp16_headroom",
)
# Beside the precisions: `<precision>-<runtime>`, where a runtime's arithmetic makes a class.
RUNTIME_CLASSES = (
    "fp16-webgpu",
    "fp16-browser-webgpu",
    "fp16-onnxruntime-cuda",
    "fp32-llamacpp-gpu",
    "fp16-llamacpp-gpu",
    "bf16-llamacpp-gpu",
)
