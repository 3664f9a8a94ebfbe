"""A plan as a graph of steps: each one command of ours, in a process of its own, done once.

A step's key is a hash of all that its result depends on; the result lies in a store under that key,
or not at all. So a run goes on where one was ended, several machines share what they did, and what
a lost machine was at is done by another. Nothing here imports `export` or `runtimes`: what a step
does is a module that is named.
"""
