"""User prototypes: clusters of preference analyses, refined on choices (paper, section 3.3)."""
