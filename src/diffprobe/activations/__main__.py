"""Prints what a store of activations holds, and checks it: python -m diffprobe.activations STORE [--verify]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffprobe.errors import UserError
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command

if TYPE_CHECKING:
    from diffprobe.activations.store.folder import Store, Survey


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for no store, or damaged shards."""
    parser = argparse.ArgumentParser(
        prog="python -m diffprobe.activations", description="Look at a store of activations."
    )
    parser.add_argument("store", type=typed_path, help="folder with a manifest.json")
    parser.add_argument("--verify", action="store_true", help="read every byte and compare every checksum")
    options = parser.parse_args(arguments)
    from diffprobe.activations.store.folder import open_store

    try:
        store = open_store(options.store)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    survey = store.verify() if options.verify else store.survey()
    print_store(store, survey)
    if options.verify:
        print(f"checksums: {len(survey.finished)} shards read and good")
    for shard, why in survey.damaged.items():
        print(f"damaged: {shard.path} {why}. Delete it and run the extraction again")
    return 1 if survey.damaged else 0


def print_store(store: Store, survey: Survey) -> None:
    """Prints model, images, layers, steps, size and the state of the shards."""
    from diffprobe.activations.budget import in_units, plan_store

    manifest, plan = store.manifest, plan_store(store)
    versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
    print(f"{store.folder}: made {manifest.created} with {versions}")
    for note in store.notes:
        print(f"note: {note}")
    print("model:", ", ".join(f"{key} {value}" for key, value in manifest.model.items()))
    print("trajectory:", ", ".join(f"{key} {value}" for key, value in manifest.trajectory.items()))
    print(f"images: {len(manifest.images)}, {manifest.ids[0]} to {manifest.ids[-1]}")
    print(f"steps: {', '.join(map(str, manifest.steps))}")
    print(f"timesteps: {', '.join(f'{timestep:g}' for timestep in manifest.timesteps)}")
    print(f"layers: {len(manifest.layers)} in {manifest.dtype}, channels x height x width")
    for layer in manifest.layers:
        shape = f"{layer.channels} x {layer.height} x {layer.width}"
        print(f"  {layer.name}  {shape}  {in_units(plan.layers[layer.name])}")
    for extra in manifest.extras:
        shape = " x ".join(map(str, extra.shape))
        print(f"  extra/{extra.name}  {shape} {extra.dtype}  {in_units(plan.extras[extra.name])}")
    print(
        f"shards: {len(survey.finished)} of {len(store.shards)} finished, {len(survey.missing)} missing, "
        f"{len(survey.damaged)} damaged; {in_units(plan.total)} in all, {in_units(plan.remaining)} still to be written"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
