"""`edgeproof audit`: files that others made, inspected, and compared with their original.

What a manifest says of our own exports is found in the bytes here (`gguf`, `onnx`, `mlc` give an
`Inspection`), `description` makes an artifact of it, and the parity run compares that.
"""
