"""A peer for `make bench`: the same GGUF file by gguf-py alone, its quantisers and its writer.

`python -m benchmarks.gguf_numpy CHECKPOINT TYPE FILE`. The work is that of an export: every tensor
is read, matrices are quantised to the type, norms stay float32, and all is written. Rows of query
and key projections are not permuted and there is no tokenizer: the peer does rather less than we.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors import safe_open


def main() -> None:
    """Write the file; arguments as above."""
    checkpoint, name, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    kind = GGMLQuantizationType[name.upper()]
    writer = GGUFWriter(target, "llama", use_temp_file=False)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            for tensor in file.keys():  # noqa: SIM118 - it is no mapping
                values = file.get_tensor(tensor).astype(np.float32, copy=False)
                stored = kind if values.ndim > 1 else GGMLQuantizationType.F32
                writer.add_tensor(tensor, quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
