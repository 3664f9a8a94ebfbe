"""Values of a graph's tensors: in it, or mapped from its data files, so that nothing is held twice.

Data files may be links, which onnx's own reader refuses: the hub's cache has nothing else, and ONNX
Runtime opens them. What a graph names outside its folder is not read.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path, PurePosixPath

import numpy as np
from onnx import TensorProto, helper, numpy_helper

BITS = dict.fromkeys((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1), 4)
# What a checkpoint's names end with; a suffix follows where one tensor is stored as several.
PARAMETER = re.compile(r".*\.(weight|bias)")


def nbytes(tensor: TensorProto) -> int:
    """What its values take, by its type and shape."""
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    bits: int = BITS.get(tensor.data_type, 8 * kind.itemsize)
    size: int = -(-math.prod(tensor.dims) * bits // 8)
    return size


def place_of(tensor: TensorProto, folder: Path) -> tuple[str, str, str] | None:
    """The file, offset and length of a tensor in a data file; None of one in the graph itself."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entry = {item.key: item.value for item in tensor.external_data}
    location = os.path.normpath(folder / entry.get("location", ""))
    return location, entry.get("offset", "0"), entry.get("length", "")


def stored_array(tensor: TensorProto, folder: Path) -> np.ndarray:
    """The values of a tensor of a graph in `folder`, in its own dtype; a view where that is free.

    Layout: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.

    Raises:
        OSError: the data file cannot be read.
        ValueError: it is too short, lies elsewhere, or its length is not the tensor's.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    entry = {item.key: item.value for item in tensor.external_data}
    location = PurePosixPath(entry.get("location", ""))
    if not location.parts or location.is_absolute() or ".." in location.parts:
        raise ValueError(f"{tensor.name}: its data lie outside the folder, in {location}")
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    size, begin = nbytes(tensor), int(entry.get("offset", 0))
    if begin < 0 or int(entry.get("length", size)) != size:
        raise ValueError(f"{tensor.name}: {entry.get('length')} bytes, its shape is of {size}")
    if not size:
        return np.empty(tensor.dims, kind)
    data = np.memmap(folder / location, np.uint8, "r", begin, (size,))
    if tensor.data_type not in BITS:
        return np.asarray(data.view(kind).reshape(tensor.dims))
    packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=data.tobytes())
    return np.asarray(numpy_helper.to_array(packed))
