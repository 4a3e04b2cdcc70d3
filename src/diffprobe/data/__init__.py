"""What is looked at: prompts and their seeds, from a file or from the pocket world's grammar."""
