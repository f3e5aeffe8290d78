"""What each stage of training brings the bundled judge (paper, tables 3 and 7)."""
