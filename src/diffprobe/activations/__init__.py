"""What was extracted from a backbone, in memory and on disk."""
