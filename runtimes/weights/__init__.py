"""The weights of an artifact, read back from its bytes without any code of the exporters.

Run in PyTorch they show the error of the stored weights alone; and because nothing is shared with
`export`, a mistake of a writer cannot hide in its own reader. `runtimes.formats.dequantise` reads.
"""
