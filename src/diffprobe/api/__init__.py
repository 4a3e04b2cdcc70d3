"""What `import diffprobe as dp` offers: models, studies of them, and their results, in Python."""
