"""Which calls run, which wait and which are refused, so that a busy server stays quick, and fair to its callers."""
