"""report.html: one file that needs no other and no network."""
