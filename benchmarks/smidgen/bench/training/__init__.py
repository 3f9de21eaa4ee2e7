"""How fast a network is trained: smidgen beside what else could train it (see ``__main__``).

Every contender is a process of its own: ``smidgen_worker``, ``keras_worker`` and ``timm_worker``.
Each trains without end and lets its ``Gate`` decide when; ``contest`` lets them take turns.
"""
