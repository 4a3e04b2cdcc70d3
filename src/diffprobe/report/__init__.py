"""What people see of a run: figures, tables and sentences on the terminal, W&B, and the record of its surroundings."""
