"""Rules for intervals, p-values and rankings that the whole package uses; they hold from five images on."""
