"""report.html: one self-contained page for a run folder, whatever made it."""
