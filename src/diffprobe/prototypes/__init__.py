"""Objects as prototypes: masks and pooling, distances, distance sets and their statistics."""
