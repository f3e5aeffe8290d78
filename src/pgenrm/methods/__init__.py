"""Every method that P-GenRM was compared with, behind one protocol (paper, table 1)."""
