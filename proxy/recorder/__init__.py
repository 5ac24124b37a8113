"""The recorder: a process beside each worker that turns what the worker notes of its calls into records of the spool.

The worker only hands over what it saw, in one write to a pipe. Reading heads, finding secrets, hashing, encoding
and the disk are the recorder's, so none of it is in the way of a call; and what was handed over survives the worker.
"""
