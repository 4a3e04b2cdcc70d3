"""What one asks of the rooms below. One file a study; each returns plain tables and draws, prints and logs nothing."""
