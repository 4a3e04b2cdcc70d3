"""The reference of `import diffprobe as dp`: every public name with its docstring, which mkdocstrings reads."""

from __future__ import annotations

from importlib import import_module

_PARTS = {
    "Models and activations": ["load", "Model", "Layers", "prompts", "Prompt", "Captured", "TrajectoryStep"],
    "Studies": [
        *("probe", "emergence", "shortcuts", "similarity", "intervene", "classify", "separation", "drift"),
        "object_prototypes",
        "compare",
    ],
    "Results": ["Result", "Run", "read_run", "ObjectPrototypes"],
}


def page() -> str:
    """All names of `diffprobe.__all__`, the ones above in their order, the rest at the end."""
    package = import_module("diffprobe")
    listed = {name for part in _PARTS.values() for name in part}
    parts = {**_PARTS, "Others": [name for name in package.__all__ if name not in listed]}
    lines = [
        "# Python API",
        "",
        "Every name of `import diffprobe as dp`. [In Python](../python.md) shows how they fit together.",
        "",
    ]
    for part, names in parts.items():
        lines += [f"## {part}", ""]
        for name in names:
            lines += [
                f"::: {package._PLACES[name]}.{name}",
                "    options:",
                f"      heading: dp.{name}",
                f"      toc_label: dp.{name}",
                "",
            ]
    return "\n".join(lines)
