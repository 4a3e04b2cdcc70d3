"""Activations on disk: a manifest and safetensors shards, each owned by one process. See docs/store.md."""
