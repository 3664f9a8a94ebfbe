"""Recorded digests of exported files: whoever moves code can show that the bytes stay.

`tiny.json` has those of small checkpoints of every family in all types that are written here,
`real.json` those of the real bundled model. `python -m tests.digests` writes the first anew,
`python -m tests.digests --real` both; a commit that does so says which bytes change, and why.

The bytes depend on no processor, folder or clock. They may depend on the libraries that a record
names (constraints.txt pins them): where files differ, the message says which library does too.

Versions of edgeproof are put aside, and nothing else (`files.normalised`).
"""
