"""Units of work that are a single statement; anything else raises NeedsTransaction."""
