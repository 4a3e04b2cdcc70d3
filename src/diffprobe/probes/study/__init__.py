"""Trains and scores all probes and controls of a question, with activations that are kept, or in one pass."""
