"""JSON Merge Patch, RFC 7396."""

import copy
from typing import Any


def apply_merge_patch(target: object, patch: object) -> Any:
    """Return `target` with the changes of a merge patch, without changing or sharing either of them.

    Objects are merged key by key, null deletes a key, and every other value replaces the old one. Keys keep
    their order, and new ones follow.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = apply_merge_patch(merged.get(key), value)
    return merged
