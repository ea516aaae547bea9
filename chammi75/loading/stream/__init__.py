"""The training stream: one global order, dealt out to ranks and workers, resumable from a few integers.

``permutation`` and ``order`` say which unit (an image, or a plane of one) stands at each position of an epoch,
``shares`` and ``cells`` how an epoch is shared out among groups and shards, ``deal`` which positions a worker of a rank
yields, ``state`` where a run goes on, and ``ranks`` which rank this process is. They are pure functions of their
arguments, without torch and without pixels.
"""
