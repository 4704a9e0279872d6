// Filled in by the family's own commit.
